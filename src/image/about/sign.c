/*
 * Signatures: Ed25519 over what the image says as it is stored, the newest entry of its history
 * (each is chained to the one before), its data identifier, and the root of a BLAKE2b digest table
 * of its data. Verifying computes that table again, so that one changed bit anywhere is found. What
 * was added to the history since is not signed.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/image_internal.h"

enum { VERSION = 1 };

struct signature {
	uint32_t version, unused;
	struct guid data_id;
	/* history: its last entry's digest; data: not filled when quick */
	uint8_t about[32], content[32], versions[32], files[32], kept[32], history[32], data[16];
	/* over everything before it */
	uint8_t key[crypto_sign_PUBLICKEYBYTES], value[crypto_sign_BYTES];
};

int image_make_key(const char *path)
{
	uint8_t public[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
	char text[2 * sizeof(public) + 1], *name;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int error;
	FILE *out;

	if (fd < 0)
		return -errno;
	if (sodium_init() < 0 || crypto_sign_keypair(public, secret)) {
		close(fd);
		return -EIO;
	}
	error = write(fd, secret, sizeof(secret)) == sizeof(secret) ? 0 : -EIO;
	close(fd);
	sodium_memzero(secret, sizeof(secret));
	if (asprintf(&name, "%s.pub", path) < 0)
		return -ENOMEM;
	out = fopen(name, "wx");
	free(name);
	if (!out)
		return -errno;
	fprintf(out, "%s\n", sodium_bin2hex(text, sizeof(text), public, sizeof(public)));
	return fclose(out) ? -errno : error;
}

/* Of what is stored; zero when there is nothing. */
static int digest_item(struct disk *disk, struct guid id, uint8_t ret[32])
{
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(disk, id, &bytes, &count);

	memset(ret, 0, 32);
	if (error)
		return error == -ENOENT ? 0 : error;
	crypto_generichash(ret, 32, bytes, count, NULL, 0);
	free(bytes);
	return 0;
}

/* Whether this entry is, or with `last` the newest one is, put into ret. */
static int find_entry(struct disk *disk, bool last, uint8_t ret[32])
{
	json_t *history;
	size_t wrong, n;
	int error = image_load_history(disk, &history);
	bool found = false;

	if (error)
		return error;
	error = image_verify_history(history, &wrong);
	for (n = last ? json_array_size(history) - 1 : 0;
	     !error && !found && n < json_array_size(history); n++) {
		const char *text =
			json_string_value(json_object_get(json_array_get(history, n), "digest"));
		uint8_t digest[32];

		found = text &&
			!sodium_hex2bin(digest, sizeof(digest), text, strlen(text), NULL, NULL,
					NULL) &&
			(last || !memcmp(digest, ret, 32));
		if (found)
			memcpy(ret, digest, 32);
	}
	json_decref(history);
	if (error)
		return error;
	return found ? 0 : -EBADMSG;
}

/* Everything but the history, as it is now. */
static int gather(struct disk *disk, bool quick, struct signature *ret)
{
	struct disk_info info;
	int error = digest_item(disk, ITEM_ABOUT, ret->about);

	disk_info(disk, &info);
	ret->version = VERSION;
	ret->data_id = info.data_id;
	if (!error)
		error = digest_item(disk, ITEM_CONTENT, ret->content);
	if (!error)
		error = digest_item(disk, ITEM_VERSIONS, ret->versions);
	if (!error)
		error = digest_item(disk, ITEM_KEPT, ret->kept);
	if (!error && !quick)
		error = digest_item(disk, ITEM_FILES, ret->files);
	return error || quick ? error : disk_content_root(disk, ret->data);
}

int image_sign(struct disk *disk, const char *key_path)
{
	uint8_t secret[crypto_sign_SECRETKEYBYTES];
	struct signature signature = { 0 };
	int fd = open(key_path, O_RDONLY | O_CLOEXEC);
	int error;

	if (fd < 0)
		return -errno;
	error = read(fd, secret, sizeof(secret)) == sizeof(secret) && sodium_init() >= 0 ? 0
											 : -EBADMSG;
	close(fd);
	if (!error)
		error = image_add_history(disk, "umbra image sign", "signed", NULL);
	if (!error)
		error = find_entry(disk, true, signature.history);
	if (!error)
		error = gather(disk, false, &signature);
	if (!error) {
		crypto_sign_ed25519_sk_to_pk(signature.key, secret);
		crypto_sign_detached(signature.value, NULL, (const uint8_t *)&signature,
				     offsetof(struct signature, value), secret);
		error = disk_write_item(disk, ITEM_SIGNATURE, DISK_ITEM_OF_FILE, &signature,
					sizeof(signature));
	}
	sodium_memzero(secret, sizeof(secret));
	return error;
}

static const char *difference(const struct signature *signature, const struct signature *now,
			      bool quick)
{
	if (memcmp(signature->about, now->about, 32))
		return "what it says about itself";
	if (memcmp(signature->content, now->content, 32) ||
	    memcmp(signature->versions, now->versions, 32) ||
	    (!quick && memcmp(signature->files, now->files, 32)))
		return "its list of contents";
	if (memcmp(signature->kept, now->kept, 32))
		return "what is kept in it";
	if (quick)
		return guid_equal(signature->data_id, now->data_id) ? NULL : "its data";
	return memcmp(signature->data, now->data, 16) ? "its data" : NULL;
}

int image_verify(struct disk *disk, bool quick, char ret_key[65], const char **ret_what)
{
	struct signature signature;
	struct signature now = { 0 };
	uint8_t *bytes;
	size_t count;
	int error = disk_read_item(disk, ITEM_SIGNATURE, &bytes, &count);

	*ret_what = "its signature";
	ret_key[0] = 0;
	if (error)
		return error;
	if (count == sizeof(signature))
		memcpy(&signature, bytes, sizeof(signature));
	free(bytes);
	if (count != sizeof(signature) || signature.version != VERSION || sodium_init() < 0)
		return -EBADMSG;
	sodium_bin2hex(ret_key, 65, signature.key, sizeof(signature.key));
	if (crypto_sign_verify_detached(signature.value, (const uint8_t *)&signature,
					offsetof(struct signature, value), signature.key))
		return -EBADMSG;
	quick &= !guid_is_zero(signature.data_id);
	*ret_what = "its history";
	error = find_entry(disk, false, signature.history);
	if (!error)
		error = gather(disk, quick, &now);
	if (error)
		return error;
	*ret_what = difference(&signature, &now, quick);
	return *ret_what ? -EBADMSG : 0;
}
