/* Runs a fuzzer's function over files, without a fuzzer: the committed corpus in every `make check`. Any finding ends it. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
main(int argc, char **argv)
{
	static uint8_t data[1 << 20];

	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");
		if (f == NULL) {
			perror(argv[i]);
			return 1;
		}
		size_t n = fread(data, 1, sizeof data, f);
		fclose(f);
		/* a copy of just that size, so that one octet too far is seen */
		uint8_t *exact = malloc(n > 0 ? n : 1);
		if (exact == NULL)
			return 1;
		for (size_t j = 0; j < n; j++)
			exact[j] = data[j];
		LLVMFuzzerTestOneInput(exact, n);
		free(exact);
	}
	printf("%d inputs\n", argc - 1);
	return 0;
}
