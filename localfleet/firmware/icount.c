// The instruction counter, and the module `icount` that gives it to Python.
//
// QEMU's -icount shift=10 makes every instruction take 1024 ns of the virtual time that timers show.
// A timer of the nRF51 at 1 MHz thus counts 1.024 an instruction: n instructions show as
// floor(1.024 n), from which n follows. RISC-V has a counter of its own.

#include "icount.h"

#include "py/runtime.h"

#if defined(__thumb__)

// Two timers, 32 bits each, from 16 MHz: at 1 MHz, and at a 32nd of that.
#define FINE (0x40008000)
#define COARSE (0x40009000)
#define REGISTER(timer, offset) (*(volatile uint32_t *)((timer) + (offset)))
#define TASKS_START(timer) REGISTER(timer, 0x000)
#define TASKS_CAPTURE0(timer) REGISTER(timer, 0x040)
#define BITMODE(timer) REGISTER(timer, 0x508)
#define PRESCALER(timer) REGISTER(timer, 0x510)
#define CC0(timer) REGISTER(timer, 0x540)

static void timer_start(uintptr_t timer, uint32_t prescaler) {
    BITMODE(timer) = 3; // 32 bits
    PRESCALER(timer) = prescaler;
    TASKS_START(timer) = 1;
}

void icount_start(void) {
    timer_start(FINE, 4);
    timer_start(COARSE, 9);
}

uint64_t instructions(void) {
    TASKS_CAPTURE0(FINE) = 1;
    TASKS_CAPTURE0(COARSE) = 1;
    uint64_t about = (uint64_t)CC0(COARSE) * 32; // It knows how often the fine one began anew.
    uint64_t ticks = about + (int32_t)(CC0(FINE) - (uint32_t)about);
    return (ticks * 1000 + 1023) / 1024;
}

#else

void icount_start(void) {
}

uint64_t instructions(void) {
    uint32_t high, low, again;
    do {
        __asm__ volatile (
            "csrr %0, minstreth\ncsrr %1, minstret\ncsrr %2, minstreth"
            : "=r" (high), "=r" (low), "=r" (again));
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

#endif

static mp_obj_t icount_read(void) {
    return mp_obj_new_int_from_ull(instructions());
}
static MP_DEFINE_CONST_FUN_OBJ_0(icount_read_obj, icount_read);

// What measuring itself costs. Not inlined, so that it is the same code in both measurements.
static __attribute__((noinline)) uint64_t measured(
    size_t count, const mp_obj_t *arguments, mp_obj_t (*call)(size_t, const mp_obj_t *)) {
    uint64_t start = instructions();
    call(count, arguments);
    return instructions() - start;
}

static mp_obj_t call_nothing(size_t count, const mp_obj_t *arguments) {
    return mp_const_none;
}

static mp_obj_t call_function(size_t count, const mp_obj_t *arguments) {
    return mp_call_function_n_kw(arguments[0], count - 1, 0, arguments + 1);
}

// measure(function, *arguments): the instructions of the call, without those of measuring.
static mp_obj_t icount_measure(size_t count, const mp_obj_t *arguments) {
    uint64_t nothing = measured(count, arguments, call_nothing);
    return mp_obj_new_int_from_ull(measured(count, arguments, call_function) - nothing);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR(icount_measure_obj, 1, icount_measure);

static const mp_rom_map_elem_t icount_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_icount) },
    { MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&icount_read_obj) },
    { MP_ROM_QSTR(MP_QSTR_measure), MP_ROM_PTR(&icount_measure_obj) },
};
static MP_DEFINE_CONST_DICT(icount_globals, icount_globals_table);

const mp_obj_module_t icount_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&icount_globals,
};
MP_REGISTER_MODULE(MP_QSTR_icount, icount_module);
