/*
 * umbra screenshot: what is on a guest's screen, as a PNG file. The machine says the rows first and
 * how many pixels they have last; it is as little believed as its guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "option.h"
#include "png.h"
#include "talk.h"

static const char screenshot_help[] =
	"usage: umbra screenshot NAME [FILE]\n"
	"Writes what is on the screen of the machine NAME as a PNG to FILE, NAME.png when it is "
	"not said, - for standard output.\n"
	"The machine was run with --display, and its guest has a driver for it (hyperv_fb).\n";

enum { PATH_BYTES = 4096, ERRNO_MAX = 4095, PICTURE_BYTES = 3 * 2048 * 2048 };
enum { BUSY_TRIES = 50, BUSY_US = 100000 };

struct picture { uint8_t *pixels; size_t used; json_int_t width, height; };

/* A row behind its line. */
static int hear_row(FILE *peer, json_int_t bytes, struct picture *picture)
{
	if (bytes <= 0 || (size_t)bytes > PICTURE_BYTES - picture->used)
		return -EPROTO;
	if (fread(picture->pixels + picture->used, (size_t)bytes, 1, peer) != 1)
		return -ECONNRESET;
	picture->used += (size_t)bytes;
	return 0;
}

/* 1: there is more to hear; 0; -errno. */
static int take_line(FILE *peer, const json_t *line, struct picture *picture)
{
	const json_t *bytes = json_object_get(line, "data");
	const json_int_t number = json_integer_value(json_object_get(line, "errno"));
	int error;

	if (!line)
		return -ECONNRESET;
	if (bytes) {
		error = hear_row(peer, json_integer_value(bytes), picture);
		return error ? error : 1;
	}
	if (!json_is_true(json_object_get(line, "ok")))
		return number > 0 && number <= ERRNO_MAX ? -(int)number : -EPROTO;
	picture->width = json_integer_value(json_object_get(line, "width"));
	picture->height = json_integer_value(json_object_get(line, "height"));
	if (picture->width < 1 || picture->width > 2048 || picture->height < 1 ||
	    picture->height > 2048 ||
	    (size_t)(3 * picture->width * picture->height) != picture->used)
		return -EPROTO;
	return 0;
}

static int hear_picture(FILE *peer, struct picture *picture)
{
	int got = talk_ask(peer, "screenshot") ? 1 : -ECONNRESET;

	picture->used = 0;
	while (got > 0) {
		json_t *line = talk_hear(peer);

		got = take_line(peer, line, picture);
		json_decref(line);
	}
	return got;
}

/* Somebody else's question is soon over. */
static int take_picture(FILE *peer, struct picture *picture)
{
	int error = hear_picture(peer, picture);

	for (unsigned n = 0; n < BUSY_TRIES && error == -EBUSY; n++) {
		usleep(BUSY_US);
		error = hear_picture(peer, picture);
	}
	return error;
}

static int complain_of(const char *name, int error)
{
	switch (error) {
	case -ENODEV:
		return complain(EXIT_UNUSABLE, "it has no screen", name,
				"run it with --display");
	case -ENOTCONN:
		return complain(EXIT_UNUSABLE, "no driver of its guest shows anything", name,
				"load hyperv_fb in it");
	case -EFAULT:
		return complain(EXIT_UNUSABLE, "its picture is not in its memory", name,
				"have its driver use memory of the guest");
	default: return talk_failed(name, error);
	}
}

static int write_picture(FILE *file, const struct picture *picture)
{
	int error = png_write(file, picture->pixels, (uint32_t)picture->width,
			      (uint32_t)picture->height);

	return !error && fflush(file) ? -EIO : error;
}

/* It has another name until it is whole. */
static int write_file(const char *path, const struct picture *picture)
{
	char partial[PATH_BYTES + 8];
	FILE *file;
	int error;
	int fd;

	snprintf(partial, sizeof(partial), "%s.XXXXXX", path);
	fd = mkostemp(partial, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	file = fdopen(fd, "w");
	error = file ? write_picture(file, picture) : -errno;
	if (!error && rename(partial, path))
		error = -errno;
	if (error)
		unlink(partial);
	if (file)
		fclose(file);
	else
		close(fd);
	return error;
}

static int give_picture(const char *path, const struct picture *picture)
{
	int error = strcmp(path, "-") ? write_file(path, picture) : write_picture(stdout, picture);

	return error ? complain(EXIT_UNUSABLE, strerror(-error), path,
				"name a file where there is room")
		     : 0;
}

static int screenshot(const char *name, const char *path)
{
	struct picture picture = { .pixels = malloc(PICTURE_BYTES) };
	int error = 0;
	FILE *peer = talk_to(name, &error);
	int code;

	if (!picture.pixels)
		error = -ENOMEM;
	if (!error)
		error = take_picture(peer, &picture);
	if (peer)
		fclose(peer);
	code = error ? complain_of(name, error) : give_picture(path, &picture);
	free(picture.pixels);
	return code;
}

int verb_screenshot(int argc, char **argv)
{
	static const struct option longs[] = { { "help", 0, 0, 'h' }, { 0 } };
	char path[PATH_BYTES];
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "h", longs)) != -1) {
		if (option != 'h')
			return EXIT_USAGE;
		fputs(screenshot_help, stdout);
		return 0;
	}
	if (argc - optind < 1 || argc - optind > 2)
		return complain(EXIT_USAGE, "wrong number of arguments", "screenshot",
				"see umbra screenshot --help");
	snprintf(path, sizeof(path), "%s.png", argv[optind]);
	return screenshot(argv[optind], argc - optind == 2 ? argv[optind + 1] : path);
}
