/* Packing what other formats keep compressed; unpacking is inflate.h's. */
#pragma once

#include "inflate.h"

/* Of one thread. */
struct packer;
/* -ENOMEM */
int packer_create(enum compression compression, struct packer **ret);
/* The packed length; 0: it has no room. */
size_t packer_pack(struct packer *packer, const uint8_t *from, size_t bytes, uint8_t *to,
		   size_t room);
void packer_destroy(struct packer *packer); /* NULL: nothing */
