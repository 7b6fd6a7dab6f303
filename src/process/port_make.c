/* See port_make.h. */
#include "port_make.h"

#include <errno.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "ipc/share_port.h"
#include "ipc/spawn.h"
#include "lib/write_all.h"

/* What is written before the machine process has it. */
struct port_head { uint32_t side, class; uint64_t epoch; };
_Static_assert(offsetof(struct share_memory, epoch) == offsetof(struct port_head, epoch),
	       "the head of a port's memory");

static int write_head(int memory, uint8_t kind)
{
	struct port_head head = { .side = 0 };

	if (kind == SHARE_PORT_NONE)
		return 0;
	head.side = share_port_side(kind);
	head.class = share_port_class(kind);
	if (getrandom(&head.epoch, sizeof(head.epoch), 0) != sizeof(head.epoch))
		return -EIO;
	return write_all_at(memory, &head, sizeof(head), 0);
}

int port_make(uint8_t kind, struct port_parts *ret)
{
	int line[2];

	ret->memory = spawn_share("umbra-port", sizeof(struct share_memory));
	if (ret->memory < 0)
		return ret->memory;
	ret->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret->answer = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ret->bell < 0 || ret->answer < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line))
		return -errno;
	ret->joiner_line = line[0];
	ret->machine_line = line[1];
	return write_head(ret->memory, kind);
}
