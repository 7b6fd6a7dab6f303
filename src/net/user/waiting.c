/* See waiting.h. */
#include "waiting.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/check.h"

void check_waiting(const struct waiting *waiting)
{
	struct waiting_frame *const *link = &waiting->first;
	size_t bytes = 0;

	assert(waiting->bytes <= WAITING_BYTES);
	for (; *link; link = &(*link)->next) {
		assert((*link)->frame.bytes && (*link)->frame.bytes <= NET_FRAME_BYTES);
		bytes += (*link)->frame.bytes;
		assert(bytes <= waiting->bytes);
	}
	assert(bytes == waiting->bytes && link == waiting->end);
}

void waiting_init(struct waiting *waiting)
{
	*waiting = (struct waiting){ .end = &waiting->first };
}

void waiting_add(struct waiting *waiting, const struct net_frame *frame, const void *data)
{
	struct waiting_frame *one;

	if (waiting->bytes + frame->bytes > WAITING_BYTES)
		return;
	one = malloc(sizeof(*one) + frame->bytes);
	if (!one)
		return;
	*one = (struct waiting_frame){ .frame = *frame };
	memcpy(one->data, data, frame->bytes);
	*waiting->end = one;
	waiting->end = &one->next;
	waiting->bytes += frame->bytes;
	CHECK(check_waiting(waiting));
}

void waiting_drop(struct waiting *waiting)
{
	struct waiting_frame *one = waiting->first;

	assert(one);
	waiting->bytes -= one->frame.bytes;
	waiting->first = one->next;
	if (!waiting->first)
		waiting->end = &waiting->first;
	free(one);
	CHECK(check_waiting(waiting));
}
