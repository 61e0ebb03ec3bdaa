// A RISC-V from reset to main(), and what it says when it faults.

#include <stdint.h>
#include <stdio.h>

#include "host.h"

extern uint32_t bss_start, bss_end;
int main(void);

static __attribute__((aligned(4))) void trap(void) {
    uint32_t cause, at, value;
    __asm__ volatile ("csrr %0, mcause\ncsrr %1, mepc\ncsrr %2, mtval"
        : "=r" (cause), "=r" (at), "=r" (value));
    printf("trap: mcause %u at %08x, mtval %08x\n", (unsigned)cause, (unsigned)at, (unsigned)value);
    host_exit(1);
}

static __attribute__((used)) void start(void) {
    __asm__ volatile ("csrw mtvec, %0" : : "r" (trap));
    for (uint32_t *word = &bss_start; word < &bss_end; word++) {
        *word = 0;
    }
    main();
}

__attribute__((naked, section(".vectors"))) void vectors(void) {
    __asm__ ("la sp, stack_top\nj start");
}
