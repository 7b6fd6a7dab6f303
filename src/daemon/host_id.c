/* See host_id.h. */
#include "host_id.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

enum { MACHINE_ID_LETTERS = 32, DIGEST_BYTES = 16 };

int host_id_read(char ret[HOST_ID_BYTES])
{
	static const char key[crypto_generichash_KEYBYTES] = "umbra: who has this in a store";
	unsigned char letters[MACHINE_ID_LETTERS];
	unsigned char digest[DIGEST_BYTES];
	const int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -ENOENT;
	got = read(fd, letters, sizeof(letters));
	close(fd);
	/* before a host's first start it is "uninitialized" */
	if (got != MACHINE_ID_LETTERS || sodium_init() < 0)
		return -EINVAL;
	crypto_generichash(digest, sizeof(digest), letters, sizeof(letters),
			   (const unsigned char *)key, sizeof(key));
	sodium_bin2hex(ret, HOST_ID_BYTES, digest, sizeof(digest));
	return 0;
}
