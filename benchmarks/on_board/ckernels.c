/* The boards' kernels in C: what a native module compiled with gcc -O2 takes, beside ours.

   The same work on the same tables as micropython_client/tinymetafed/kernels.py, written as one
   writes it in C. The results are the same words; the benchmark checks that. */

#include "py/dynruntime.h"

enum {
    ROWS, COLUMNS, OUTPUTS, SEGMENTS, LENGTH, LINE, STEP, JUMP, DOT_SHIFT, DOWN, LEAST,
    ERROR_SHIFT, MASKED, CLIP, RATE, RATE_DOWN, STATE, INPUTS, ROW_BYTES
};

static int32_t *words(mp_obj_t buffer) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(buffer, &info, MP_BUFFER_READ);
    return info.buf;
}

static inline int32_t clip(int32_t x, int32_t least, int32_t most) {
    return x < least ? least : x > most ? most : x;
}

static mp_obj_t forward(size_t n_args, const mp_obj_t *args) {
    const int32_t *w = words(args[0]), *a = words(args[1]), *t = words(args[3]);
    int32_t *z = words(args[2]);
    const int shift = t[DOT_SHIFT], down = t[DOWN], half = 1 << down >> 1;
    const int32_t *line = a;
    for (int row = t[ROWS]; row; row--, line += t[JUMP] >> 2) {
        const int32_t *pixel = line;
        for (int column = t[COLUMNS]; column; column--, pixel += t[STEP] >> 2) {
            const int32_t *v = w;
            for (int output = t[OUTPUTS]; output; output--) {
                const int32_t *segment = pixel;
                int32_t total = 0;
                for (int k = t[SEGMENTS]; k; k--, segment += t[LINE] >> 2) {
                    const int32_t *p = segment;
                    for (int n = t[LENGTH] >> 3; n; n--, v += 8, p += 8) {
                        total += (v[0] * p[0] + v[1] * p[1] + v[2] * p[2] + v[3] * p[3] +
                                  v[4] * p[4] + v[5] * p[5] + v[6] * p[6] + v[7] * p[7]) >> shift;
                    }
                    int32_t sum = 0;
                    for (int n = t[LENGTH] & 7; n; n--) {
                        sum += *v++ * *p++;
                    }
                    total += sum >> shift;
                }
                total += (*v++ << 9) >> shift;
                *z++ = clip((total + half) >> down, t[LEAST], 8191);
            }
        }
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(forward_obj, 4, 4, forward);

static mp_obj_t carry_back(size_t n_args, const mp_obj_t *args) {
    const int32_t *w = words(args[0]), *error = words(args[1]), *t = words(args[3]);
    int32_t *below = words(args[2]);
    const int shift = t[ERROR_SHIFT];
    for (int i = 0; i < t[INPUTS]; i++) {
        below[i] = 0;
    }
    int32_t *line = below;
    for (int row = t[ROWS]; row; row--, line += t[JUMP] >> 2) {
        int32_t *pixel = line;
        for (int column = t[COLUMNS]; column; column--, pixel += t[STEP] >> 2) {
            const int32_t *v = w;
            for (int output = t[OUTPUTS]; output; output--) {
                const int32_t e = *error++;
                if (e == 0) {
                    v += t[ROW_BYTES] >> 2;
                    continue;
                }
                int32_t *segment = pixel;
                const int length = t[LENGTH];
                for (int k = t[SEGMENTS]; k; k--, segment += t[LINE] >> 2) {
                    int32_t *p = segment;
                    for (const int32_t *end = v + length; v < end;) {
                        *p++ += (e * *v++) >> shift;
                    }
                }
                v++;
            }
        }
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(carry_back_obj, 4, 4, carry_back);

static mp_obj_t settle(size_t n_args, const mp_obj_t *args) {
    const int32_t *a = words(args[1]), *t = words(args[3]);
    int32_t *below = words(args[2]);
    const int down = 12 - t[ERROR_SHIFT], half = 1 << down >> 1;
    const int32_t most = t[CLIP], masked = t[MASKED];
    for (int i = t[INPUTS]; i; i--, a++, below++) {
        *below = masked && *a == 0 ? 0 : clip((*below + half) >> down, -most, most);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(settle_obj, 4, 4, settle);

static mp_obj_t update(size_t n_args, const mp_obj_t *args) {
    const int32_t *a = words(args[1]), *error = words(args[2]);
    int32_t *w = words(args[0]), *t = words(args[3]);
    const int32_t rate = t[RATE], down = t[RATE_DOWN];
    uint32_t state = t[STATE];
    const int32_t *line = a;
    for (int row = t[ROWS]; row; row--, line += t[JUMP] >> 2) {
        const int32_t *pixel = line;
        for (int column = t[COLUMNS]; column; column--, pixel += t[STEP] >> 2) {
            int32_t *v = w;
            for (int output = t[OUTPUTS]; output; output--) {
                state = state * 1664525 + 1013904223;
                const int32_t dither = state >> 19;
                const int32_t g =
                    clip((*error++ * rate + (1 << down >> 1)) >> down, -131071, 131071);
                if (g == 0) {
                    v += t[ROW_BYTES] >> 2;
                    continue;
                }
                const int32_t *segment = pixel;
                const int length = t[LENGTH];
                for (int k = t[SEGMENTS]; k; k--, segment += t[LINE] >> 2) {
                    const int32_t *p = segment;
                    for (int32_t *end = v + length; v < end; v++) {
                        *v = clip(*v - ((g * *p++ + dither) >> 13), -32768, 32767);
                    }
                }
                *v = clip(*v - (((g << 9) + dither) >> 13), -32768, 32767);
                v++;
            }
        }
    }
    t[STATE] = state;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(update_obj, 4, 4, update);

mp_obj_t mpy_init(mp_obj_fun_bc_t *self, size_t n_args, size_t n_kw, mp_obj_t *args) {
    MP_DYNRUNTIME_INIT_ENTRY
    mp_store_global(MP_QSTR_forward, MP_OBJ_FROM_PTR(&forward_obj));
    mp_store_global(MP_QSTR_carry_back, MP_OBJ_FROM_PTR(&carry_back_obj));
    mp_store_global(MP_QSTR_settle, MP_OBJ_FROM_PTR(&settle_obj));
    mp_store_global(MP_QSTR_update, MP_OBJ_FROM_PTR(&update_obj));
    MP_DYNRUNTIME_INIT_EXIT
}
