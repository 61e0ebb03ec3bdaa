// How many instructions the processor has executed.

#include <stdint.h>

void icount_start(void);
// Instructions since icount_start(), exact; it must be called at least every 4e9 instructions.
uint64_t instructions(void);
