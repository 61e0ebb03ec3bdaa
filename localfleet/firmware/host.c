// The emulator's doors to the host. The calls are those of Arm's "Semihosting for AArch32 and
// AArch64", which RISC-V uses too. A word names the call, a second one points to its arguments.

#include <string.h>

#include "host.h"

enum {
    OPEN = 0x01,
    CLOSE = 0x02,
    WRITE = 0x05,
    READ = 0x06,
    GET_COMMAND_LINE = 0x15,
    EXIT_EXTENDED = 0x20,
};

enum {
    MODE_READ_BYTES = 1,
    MODE_WRITE = 4,
};

#define APPLICATION_EXIT (0x20026)

static uintptr_t host_call(uintptr_t call, const void *arguments) {
    #if defined(__thumb__)
    register uintptr_t result __asm__("r0") = call;
    register const void *pointer __asm__("r1") = arguments;
    __asm__ volatile ("bkpt 0xAB" : "+r" (result) : "r" (pointer) : "memory");
    #else
    register uintptr_t result __asm__("a0") = call;
    register const void *pointer __asm__("a1") = arguments;
    // QEMU looks for these three, uncompressed and within one page.
    __asm__ volatile (
        ".option push\n.option norvc\n.balign 16\n"
        "slli zero, zero, 0x1f\nebreak\nsrai zero, zero, 7\n"
        ".option pop"
        : "+r" (result) : "r" (pointer) : "memory");
    #endif
    return result;
}

static int open_as(const char *path, size_t length, uintptr_t mode) {
    const uintptr_t arguments[] = {(uintptr_t)path, mode, length};
    return (int)host_call(OPEN, arguments);
}

int host_open(const char *path, size_t length) {
    return open_as(path, length, MODE_READ_BYTES);
}

void host_close(int handle) {
    const uintptr_t arguments[] = {(uintptr_t)handle};
    host_call(CLOSE, arguments);
}

size_t host_read(int handle, void *buffer, size_t size) {
    const uintptr_t arguments[] = {(uintptr_t)handle, (uintptr_t)buffer, size};
    return size - host_call(READ, arguments); // It tells how many bytes it did not read.
}

void host_print(const char *text, size_t length) {
    static int console = -1;
    if (console < 0) {
        console = open_as(":tt", 3, MODE_WRITE);
    }
    const uintptr_t arguments[] = {(uintptr_t)console, (uintptr_t)text, length};
    host_call(WRITE, arguments);
}

void host_command_line(char text[HOST_COMMAND_LINE]) {
    uintptr_t arguments[] = {(uintptr_t)text, HOST_COMMAND_LINE};
    if (host_call(GET_COMMAND_LINE, arguments) != 0) {
        text[0] = 0;
    }
}

noreturn void host_exit(int code) {
    const uintptr_t arguments[] = {APPLICATION_EXIT, (uintptr_t)code};
    for (;;) {
        host_call(EXIT_EXTENDED, arguments);
    }
}
