/* Wrong: a section of a buffer that was revoked. */
#include "../net-wrong.h"

WRONG_ACT("a section of a buffer that was revoked", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_DATA, .section = 0, .section_bytes = 44 },
	};

	nvsp_words(NVSP_REVOKE_SEND_BUFFER, 0, 0);
	return nvsp_outcome(&message);
}
