/*
 * What a machine is, as the control socket says it. The machine process says what it likes: text is
 * printable and bounded, numbers are those that JSON's readers take.
 */
#pragma once

#include <jansson.h>

#include "machine_control.h"

/* At most INT64_MAX of it. */
json_t *json_shown(uint64_t value);
/* New: what info says of it. */
json_t *machine_describe(const struct control *control);
/* New: of one processor. */
json_t *registers_describe(const struct record_registers *registers);
