/*
 * What a statically linked pop3d has in place of libraries that only exist to be loaded at run time. GnuTLS asks p11-kit for keys on smart cards and
 * for the host's store of authorities, and libc for home directories and for what old character sets mean: pop3d has none of these, in any
 * configuration. Without them the program has no name service and loads nothing.
 */
#include <errno.h>
#include <iconv.h>
#include <pwd.h>
#include <stddef.h>
#include <stdlib.h>

int
getpwuid_r(uid_t uid, struct passwd *pw, char *buffer, size_t size, struct passwd **found)
{
	(void)uid;
	(void)pw;
	(void)buffer;
	(void)size;
	*found = NULL;		/* there is no such user */
	return 0;
}

iconv_t
iconv_open(const char *to, const char *from)
{
	(void)to;
	(void)from;
	errno = EINVAL;		/* no such conversion */
	return (iconv_t)-1;
}

size_t
iconv(iconv_t conversion, char **from, size_t *from_left, char **to, size_t *to_left)
{
	(void)conversion;
	(void)from;
	(void)from_left;
	(void)to;
	(void)to_left;
	errno = EBADF;
	return (size_t)-1;
}

int
iconv_close(iconv_t conversion)
{
	(void)conversion;
	errno = EBADF;
	return -1;
}

/* Nothing of pop3d's leads here. Should GnuTLS come to it all the same, the process ends. */
#define NEVER(name)			\
	void name(void);		\
	void				\
	name(void)			\
	{				\
		abort();		\
	}

NEVER(p11_kit_config_option)
NEVER(p11_kit_message)
NEVER(p11_kit_module_finalize)
NEVER(p11_kit_module_get_flags)
NEVER(p11_kit_module_get_name)
NEVER(p11_kit_module_load)
NEVER(p11_kit_module_release)
NEVER(p11_kit_modules_load)
NEVER(p11_kit_pin_file_callback)
NEVER(p11_kit_pin_get_length)
NEVER(p11_kit_pin_get_value)
NEVER(p11_kit_pin_new_for_string)
NEVER(p11_kit_pin_register_callback)
NEVER(p11_kit_pin_request)
NEVER(p11_kit_pin_unref)
NEVER(p11_kit_pin_unregister_callback)
NEVER(p11_kit_space_strdup)
NEVER(p11_kit_space_strlen)
NEVER(p11_kit_strerror)
NEVER(p11_kit_uri_format)
NEVER(p11_kit_uri_free)
NEVER(p11_kit_uri_get_attribute)
NEVER(p11_kit_uri_get_attributes)
NEVER(p11_kit_uri_get_module_info)
NEVER(p11_kit_uri_get_pin_source)
NEVER(p11_kit_uri_get_pin_value)
NEVER(p11_kit_uri_get_token_info)
NEVER(p11_kit_uri_match_module_info)
NEVER(p11_kit_uri_match_token_info)
NEVER(p11_kit_uri_new)
NEVER(p11_kit_uri_parse)
NEVER(p11_kit_uri_set_attribute)
