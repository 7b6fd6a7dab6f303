/* Inside a stream: its descriptors, and what is held of either side. */
#pragma once

#include "process_stream.h"
#include "websocket.h"

enum { IN_BYTES = WEBSOCKET_FRAME_BYTES + 64 };
enum channel { CHANNEL_INPUT, CHANNEL_OUTPUT, CHANNEL_ERRORS, CHANNEL_END, CHANNEL_SIZE };
enum { OUTPUT, ERRORS, OUTPUTS };

struct watched { struct loop_source source; uint32_t wanted; bool is_there; };

struct outlet { struct process_stream *stream; struct watched watched; enum channel channel; };

struct process_stream {
	struct process_stream_plan plan;
	pid_t pid;
	struct watched socket, process, input;
	struct outlet outlet[OUTPUTS];
	uint8_t in[IN_BYTES]; /* of the client, not understood yet */
	size_t in_used;
	enum channel channel; /* of the message whose frames come */
	uint8_t pending[WEBSOCKET_FRAME_BYTES]; /* for the process */
	size_t pending_at, pending_used;
	bool input_ends;
	uint8_t *out; /* for the client */
	size_t out_at, out_used, out_room;
	bool has_exited, closes;
	int code;
};

/* Invariant 2: who does not take what is held has the other not read. */
void check_stream(const struct process_stream *stream);
