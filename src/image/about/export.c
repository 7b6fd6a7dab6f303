/* The package list for other programs: SPDX 2.3 and CycloneDX 1.5, each a JSON document. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* Everything but letters, digits, dot, dash, underscore and ~ is escaped, as package URLs want it.
 * */
static void escape(const char *from, char *to, size_t bytes)
{
	size_t used = 0;

	for (; *from && used + 4 < bytes; from++) {
		bool plain =
			strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_~",
			       *from);

		used += (size_t)snprintf(to + used, bytes - used, plain ? "%c" : "%%%02X",
					 (unsigned char)*from);
	}
	to[used] = 0;
}

static json_t *package_url(const json_t *package, const char *os)
{
	char name[512], version[512], arch[128];

	escape(text_of(package, "name"), name, sizeof(name));
	escape(text_of(package, "version"), version, sizeof(version));
	escape(text_of(package, "arch"), arch, sizeof(arch));
	return json_sprintf("pkg:%s/%s/%s@%s?arch=%s", text_of(package, "kind"), *os ? os : "linux",
			    name, version, arch);
}

/* A name for the document that is the same for the same content. */
static void unique(const json_t *content, char text[33])
{
	char *all = json_dumps(content, JSON_COMPACT | JSON_SORT_KEYS);
	uint8_t digest[16] = { 0 };

	if (all)
		crypto_generichash(digest, sizeof(digest), (const uint8_t *)all, strlen(all), NULL,
				   0);
	sodium_bin2hex(text, 33, digest, sizeof(digest));
	free(all);
}

json_t *image_to_spdx(const json_t *about, const json_t *content, const char *name)
{
	const char *os = text_of(json_object_get(about, "os"), "id");
	json_t *packages = json_array();
	json_t *relations = json_array();
	json_t *json;
	char now[32], id[33];
	size_t n;

	json_array_foreach(json_object_get(content, "packages"), n, json)
	{
		json_t *spdx_id = json_sprintf("SPDXRef-Package-%zu", n);
		json_t *url = json_pack("{s:s, s:s, s:o}", "referenceCategory", "PACKAGE-MANAGER",
					"referenceType", "purl", "referenceLocator",
					package_url(json, os));

		json_array_append_new(packages,
				      json_pack("{s:O, s:s, s:s, s:s, s:b, s:s, s:s, s:s, s:[o]}",
						"SPDXID", spdx_id, "name", text_of(json, "name"),
						"versionInfo", text_of(json, "version"),
						"downloadLocation", "NOASSERTION", "filesAnalyzed",
						0, "licenseConcluded", "NOASSERTION",
						"licenseDeclared", "NOASSERTION", "copyrightText",
						"NOASSERTION", "externalRefs", url));
		json_array_append_new(relations,
				      json_pack("{s:s, s:s, s:o}", "spdxElementId",
						"SPDXRef-DOCUMENT", "relationshipType", "DESCRIBES",
						"relatedSpdxElement", spdx_id));
	}
	image_now(now);
	unique(content, id);
	return json_pack("{s:s, s:s, s:s, s:s%, s:o, s:{s:s, s:[s]}, s:o, s:o}", "spdxVersion",
			 "SPDX-2.3", "dataLicense", "CC0-1.0", "SPDXID", "SPDXRef-DOCUMENT", "name",
			 name, strlen(name), "documentNamespace",
			 json_sprintf("urn:umbra:image:%s", id), "creationInfo", "created", now,
			 "creators", "Tool: umbra", "packages", packages, "relationships",
			 relations);
}

json_t *image_to_cyclonedx(const json_t *about, const json_t *content, const char *name)
{
	const char *os = text_of(json_object_get(about, "os"), "id");
	json_t *components = json_array();
	json_t *json;
	char now[32];
	size_t n;

	json_array_foreach(json_object_get(content, "packages"), n, json)
	{
		json_t *url = package_url(json, os);

		json_array_append_new(components,
				      json_pack("{s:s, s:O, s:s, s:s, s:o}", "type", "library",
						"bom-ref", url, "name", text_of(json, "name"),
						"version", text_of(json, "version"), "purl", url));
	}
	image_now(now);
	return json_pack("{s:s, s:s, s:i, s:{s:s, s:{s:s, s:s, s:s%}}, s:o}", "bomFormat",
			 "CycloneDX", "specVersion", "1.5", "version", 1, "metadata", "timestamp",
			 now, "component", "type", "operating-system", "bom-ref", "image", "name",
			 name, strlen(name), "components", components);
}
