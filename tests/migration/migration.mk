# Moves from every other server, each the real one of Debian's package: what is not installed is unpacked into build/migration. Root only.
check-migration: all
	@tests/migration/fetch.sh $(abspath $(B))/migration
	@MIGRATION_ALL=1 MIGRATION_ROOT=$(abspath $(B))/migration/root POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 \
		$(PYTHON) -m pytest -q -rs -p no:cacheprovider tests/test_migration.py

.PHONY: check-migration
