/* Wrong: a command before the first words. */
#include "../bus-wrong.h"

WRONG_ACT("a command before the first words", VSTOR_INVALID_STATE)
{
	struct vstor_packet begin = { .operation = VSTOR_BEGIN, .flags = 1 };
	struct vstor_packet execute = { .operation = VSTOR_EXECUTE, .flags = 1 };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, &begin, sizeof(begin), NULL, 0);
	channel_get(&ch, &head, &begin, sizeof(begin));
	channel_put(&ch, PACKET_INBAND, &execute, sizeof(execute), NULL, 0);
	return channel_get(&ch, &head, &execute, sizeof(execute)) ? execute.status : BROKEN;
}
