// How many instructions the processor has executed.

#include <stdint.h>

void icount_start(void);
// Instructions since icount_start(), exact up to 1e11.
uint64_t instructions(void);
