// Runs one script, named on the command line, and ends: with code 1 where an exception ended it.

#include <string.h>

#include "py/builtin.h"
#include "py/compile.h"
#include "py/gc.h"
#include "py/mphal.h"
#include "py/persistentcode.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/runtime/gchelper.h"

#include "host.h"

static uint32_t heap[HEAP_SIZE / sizeof(uint32_t)];

static void set_arguments(void) {
    static char line[HOST_COMMAND_LINE];
    host_command_line(line);
    char *word = line;
    for (char *at = line;; at++) {
        if (*at == ' ' || *at == 0) {
            mp_obj_list_append(mp_sys_argv, mp_obj_new_str(word, at - word));
            word = at + 1;
        }
        if (*at == 0) {
            break;
        }
    }
}

static void run(qstr path) {
    const char *text = qstr_str(path);
    size_t length = strlen(text);
    mp_obj_t function;
    if (length > 4 && strcmp(text + length - 4, ".mpy") == 0) {
        mp_compiled_module_t compiled = {
            .context = m_new_obj(mp_module_context_t),
        };
        compiled.context->module.globals = mp_globals_get();
        mp_raw_code_load_file(path, &compiled);
        function = mp_make_function_from_proto_fun(compiled.rc, compiled.context, NULL);
    } else {
        mp_lexer_t *lexer = mp_lexer_new_from_file(path);
        mp_parse_tree_t tree = mp_parse(lexer, MP_PARSE_FILE_INPUT);
        function = mp_compile(&tree, path, false);
    }
    mp_call_function_0(function);
}

static int exit_code(mp_obj_t exception) {
    mp_obj_t type = MP_OBJ_FROM_PTR(mp_obj_get_type(exception));
    if (!mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_SystemExit))) {
        mp_obj_print_exception(&mp_plat_print, exception);
        return 1;
    }
    mp_obj_t value = mp_obj_exception_get_value(exception);
    mp_int_t code = 0;
    if (value != mp_const_none && !mp_obj_get_int_maybe(value, &code)) {
        mp_obj_print_helper(&mp_plat_print, value, PRINT_STR);
        mp_print_str(&mp_plat_print, "\n");
        code = 1;
    }
    return code;
}

int main(void) {
    icount_start();
    mp_stack_ctrl_init();
    mp_stack_set_limit(STACK_SIZE);
    gc_init(heap, heap + MP_ARRAY_SIZE(heap));
    mp_init();
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        set_arguments();
        run(mp_obj_str_get_qstr(mp_obj_subscr(
            mp_sys_argv, MP_OBJ_NEW_SMALL_INT(0), MP_OBJ_SENTINEL)));
        nlr_pop();
        host_exit(0);
    }
    host_exit(exit_code(MP_OBJ_FROM_PTR(nlr.ret_val)));
}

// --- What py/ asks of a port

void gc_collect(void) {
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

void nlr_jump_fail(void *value) {
    mp_print_str(&mp_plat_print, "an exception with nobody to catch it\n");
    host_exit(1);
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t length) {
    host_print(text, length);
    return length;
}

void mp_hal_delay_us(mp_uint_t us) {
    uint64_t end = instructions() + us;
    while (instructions() < end) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms) {
    mp_hal_delay_us(ms * 1000);
}
