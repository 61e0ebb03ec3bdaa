// A Cortex-M0 from reset to main(), and what it says when it faults.

#include <stdint.h>
#include <stdio.h>

#include "host.h"

extern uint32_t stack_top, bss_start, bss_end;
int main(void);

static void start(void) {
    for (uint32_t *word = &bss_start; word < &bss_end; word++) {
        *word = 0;
    }
    main();
}

static __attribute__((used)) void report(const uint32_t *frame) {
    printf("HardFault at %08x, called from %08x; r0-r3 %08x %08x %08x %08x\n",
        (unsigned)frame[6], (unsigned)frame[5],
        (unsigned)frame[0], (unsigned)frame[1], (unsigned)frame[2], (unsigned)frame[3]);
    host_exit(1);
}

// Every fault of a Cortex-M0 is this one: bad address, odd address, no such instruction.
static __attribute__((naked)) void hard_fault(void) {
    __asm__ ("mov r0, sp\nbl report");
}

// The processor reads its stack's top and where to start from here; nothing interrupts.
__attribute__((section(".vectors"))) const void *const vectors[16] = {
    &stack_top, start, hard_fault, hard_fault,
};
