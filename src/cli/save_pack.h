/*
 * What a machine says when it is saved (vm/saved.h), packed on its way into the file: its PAGE
 * sections become packed ones (vm/packed_pages.h) where that makes them smaller, and INDX and END
 * say where everything is then. All else goes through as it is.
 *
 *   machine      head | PAGE ... | MACH, parts, PAGE ... | INDX ... END
 *   file         head | PAGE ... | MACH, parts, PAGE ... | INDX ... END     section for section
 *
 *   - Here, and not in the machine process: what packs has no place among what a guest may have
 *     taken over, and costs the machine no time of its processors'.
 *   - What comes is hostile: a section that is taken as a whole is no longer than one that
 *     machine_save() writes, and an index has to name the sections that came, in their order.
 *   - A machine that has no index (vm/saver.h) has none in the file.
 */
#pragma once

#include <stddef.h>

struct save_pack;

/* Into where write() writes: 0 or -errno. NULL: no memory. */
struct save_pack *save_pack_make(int (*write)(void *context, const void *data, size_t bytes),
				 void *context);
void save_pack_free(struct save_pack *pack);
/*
 * The next bytes. 0; -EPROTO: no saved machine is written so; what write() said; -ENOMEM.
 */
int save_pack_take(struct save_pack *pack, const void *data, size_t bytes);
/* Whether all of it has come. 0 or -EPROTO. */
int save_pack_end(const struct save_pack *pack);
