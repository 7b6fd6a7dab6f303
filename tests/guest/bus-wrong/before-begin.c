/* Wrong: a command before the first words. */
#include "../bus-wrong.h"

WRONG_ACT("a command before the first words", VSTOR_INVALID_STATE)
{
	struct vstor_packet p = { .operation = VSTOR_BEGIN, .flags = 1 };
	struct vstor_packet q = { .operation = VSTOR_EXECUTE, .flags = 1 };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, &p, sizeof(p), NULL, 0);
	channel_get(&ch, &head, &p, sizeof(p));
	channel_put(&ch, PACKET_INBAND, &q, sizeof(q), NULL, 0);
	return channel_get(&ch, &head, &q, sizeof(q)) ? q.status : BROKEN;
}
