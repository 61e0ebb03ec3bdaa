// The board's file system: the host's folder in which the emulator runs, for reading only.
//
// Modules are loaded through a small buffer into the heap, as from a board's flash file system.

#include <string.h>

#include "py/builtin.h"
#include "py/lexer.h"
#include "py/mperrno.h"
#include "py/reader.h"
#include "py/runtime.h"
#include "py/stream.h"

#include "host.h"

#define BUFFER_SIZE (64)

static int open_or_raise(mp_obj_t path) {
    size_t length;
    const char *text = mp_obj_str_get_data(path, &length);
    int handle = host_open(text, length);
    if (handle < 0) {
        mp_raise_OSError_with_filename(MP_ENOENT, text);
    }
    return handle;
}

// --- Importing

static bool opens(const char *path) {
    int handle = host_open(path, strlen(path));
    if (handle < 0) {
        return false;
    }
    host_close(handle);
    return true;
}

mp_import_stat_t mp_import_stat(const char *path) {
    if (!opens(path)) {
        return MP_IMPORT_STAT_NO_EXIST;
    }
    vstr_t inside; // The host opens folders too; but only a folder has a "." in it.
    vstr_init(&inside, strlen(path) + 3);
    vstr_add_str(&inside, path);
    vstr_add_str(&inside, "/.");
    bool folder = opens(vstr_null_terminated_str(&inside));
    vstr_clear(&inside);
    return folder ? MP_IMPORT_STAT_DIR : MP_IMPORT_STAT_FILE;
}

typedef struct _file_reader_t {
    int handle;
    size_t position;
    size_t filled;
    uint8_t buffer[BUFFER_SIZE];
} file_reader_t;

static mp_uint_t file_reader_next(void *data) {
    file_reader_t *reader = data;
    if (reader->position == reader->filled) {
        reader->position = 0;
        reader->filled = host_read(reader->handle, reader->buffer, BUFFER_SIZE);
        if (reader->filled == 0) {
            return MP_READER_EOF;
        }
    }
    return reader->buffer[reader->position++];
}

static void file_reader_close(void *data) {
    file_reader_t *reader = data;
    host_close(reader->handle);
    m_del_obj(file_reader_t, reader);
}

void mp_reader_new_file(mp_reader_t *reader, qstr path) {
    int handle = open_or_raise(MP_OBJ_NEW_QSTR(path));
    file_reader_t *data = m_new_obj(file_reader_t);
    *data = (file_reader_t) {.handle = handle};
    *reader = (mp_reader_t) {data, file_reader_next, file_reader_close};
}

mp_lexer_t *mp_lexer_new_from_file(qstr path) {
    mp_reader_t reader;
    mp_reader_new_file(&reader, path);
    return mp_lexer_new(path, reader);
}

// --- open()

typedef struct _file_t {
    mp_obj_base_t base;
    int handle; // -1 when closed
} file_t;

static mp_uint_t file_read(mp_obj_t self_in, void *buffer, mp_uint_t size, int *errcode) {
    file_t *self = MP_OBJ_TO_PTR(self_in);
    if (self->handle < 0) {
        *errcode = MP_EBADF;
        return MP_STREAM_ERROR;
    }
    return host_read(self->handle, buffer, size);
}

static mp_uint_t file_ioctl(mp_obj_t self_in, mp_uint_t request, uintptr_t arg, int *errcode) {
    file_t *self = MP_OBJ_TO_PTR(self_in);
    if (request != MP_STREAM_CLOSE) {
        *errcode = MP_EINVAL;
        return MP_STREAM_ERROR;
    }
    if (self->handle >= 0) {
        host_close(self->handle);
        self->handle = -1;
    }
    return 0;
}

static const mp_rom_map_elem_t file_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&mp_stream_read_obj) },
    { MP_ROM_QSTR(MP_QSTR_readinto), MP_ROM_PTR(&mp_stream_readinto_obj) },
    { MP_ROM_QSTR(MP_QSTR_readline), MP_ROM_PTR(&mp_stream_unbuffered_readline_obj) },
    { MP_ROM_QSTR(MP_QSTR_readlines), MP_ROM_PTR(&mp_stream_unbuffered_readlines_obj) },
    { MP_ROM_QSTR(MP_QSTR_close), MP_ROM_PTR(&mp_stream_close_obj) },
    { MP_ROM_QSTR(MP_QSTR___enter__), MP_ROM_PTR(&mp_identity_obj) },
    { MP_ROM_QSTR(MP_QSTR___exit__), MP_ROM_PTR(&mp_stream___exit___obj) },
};
static MP_DEFINE_CONST_DICT(file_locals, file_locals_table);

static const mp_stream_p_t bytes_stream = {
    .read = file_read,
    .ioctl = file_ioctl,
};

static const mp_stream_p_t text_stream = {
    .read = file_read,
    .ioctl = file_ioctl,
    .is_text = true,
};

static MP_DEFINE_CONST_OBJ_TYPE(
    bytes_file_type, MP_QSTR_FileIO, MP_TYPE_FLAG_ITER_IS_STREAM,
    protocol, &bytes_stream, locals_dict, &file_locals);

static MP_DEFINE_CONST_OBJ_TYPE(
    text_file_type, MP_QSTR_TextIOWrapper, MP_TYPE_FLAG_ITER_IS_STREAM,
    protocol, &text_stream, locals_dict, &file_locals);

static mp_obj_t file_open(size_t count, const mp_obj_t *arguments, mp_map_t *keywords) {
    const char *mode = count > 1 ? mp_obj_str_get_str(arguments[1]) : "r";
    bool bytes = strcmp(mode, "rb") == 0;
    if (!bytes && strcmp(mode, "r") != 0 && strcmp(mode, "rt") != 0) {
        mp_raise_OSError(MP_EROFS); // The host's files are safe from the board.
    }
    file_t *file = mp_obj_malloc(file_t, bytes ? &bytes_file_type : &text_file_type);
    file->handle = -1;
    file->handle = open_or_raise(arguments[0]);
    return MP_OBJ_FROM_PTR(file);
}
MP_DEFINE_CONST_FUN_OBJ_KW(mp_builtin_open_obj, 1, file_open);
