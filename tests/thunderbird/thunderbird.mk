# Thunderbird sets itself up from authctl's autoconfig and fetches: root, and the packages thunderbird and xvfb; about a minute. SCREENSHOT=FILE.png
# keeps a picture of its window (package imagemagick).
check-thunderbird: all
	@POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -rs -p no:cacheprovider tests/thunderbird/check_thunderbird.py

.PHONY: check-thunderbird
