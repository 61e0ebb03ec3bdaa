// What py/mphal.h asks of a port. Time is instructions: one a microsecond (see icount.c).

#include "icount.h"

#define mp_hal_set_interrupt_char(c)

static inline mp_uint_t mp_hal_ticks_cpu(void) {
    return (mp_uint_t)instructions();
}

static inline mp_uint_t mp_hal_ticks_us(void) {
    return (mp_uint_t)instructions();
}

static inline mp_uint_t mp_hal_ticks_ms(void) {
    return (mp_uint_t)(instructions() / 1000);
}
