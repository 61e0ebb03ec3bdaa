// The emulator's doors to the host: files, standard output, exit (Arm's "semihosting").

#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>

// How much of the command line there is room for, in bytes.
#define HOST_COMMAND_LINE (1024)

// Opens a host's file for reading: a handle, or -1.
int host_open(const char *path, size_t length);
void host_close(int handle);
// Reads at most size bytes: how many there were.
size_t host_read(int handle, void *buffer, size_t size);
void host_print(const char *text, size_t length);
// The words after -semihosting-config arg=, with a space between them; "" where they are too long.
void host_command_line(char text[HOST_COMMAND_LINE]);
noreturn void host_exit(int code);
