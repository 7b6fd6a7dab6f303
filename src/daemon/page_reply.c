/* The page's files, and what a browser is told about whatever the daemon answers (front.h). */
#include <string.h>

#include "front_internal.h"
#include "page/page.h"

/* Scripts and styles are files of ours; nothing is loaded from elsewhere, or embedded in others. */
static const char policy[] =
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
	"require-trusted-types-for 'script'; trusted-types 'none'";

void page_headers(struct MHD_Response *response, const char *type)
{
	static const struct { const char *name, *value; } rows[] = {
		{ "Cache-Control", "no-store" },
		{ "X-Content-Type-Options", "nosniff" },
		{ "X-Frame-Options", "DENY" },
		{ "Referrer-Policy", "no-referrer" },
		{ "Cross-Origin-Resource-Policy", "same-origin" },
		{ "Cross-Origin-Opener-Policy", "same-origin" },
		{ "Content-Security-Policy", policy },
	};

	MHD_add_response_header(response, "Content-Type", type);
	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
		MHD_add_response_header(response, rows[n].name, rows[n].value);
}

const struct page_file *page_of(const struct request *request)
{
	if (strcmp(request->method, "GET") && strcmp(request->method, "HEAD"))
		return NULL;
	return page_find(request->path);
}

enum MHD_Result page_reply(struct request *request, const struct page_file *file)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		file->bytes, (void *)(uintptr_t)file->data, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result queued;

	if (!response)
		return MHD_NO;
	page_headers(response, file->type);
	request->front->daemon->calls++;
	queued = MHD_queue_response(request->connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return queued;
}
