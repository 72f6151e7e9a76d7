# The protocol of UPDATE, delivery, crash and recovery, every way it can go (spin). `make model`.

SPIN ?= spin

$(B)/model/update: tests/model/update.pml
	@mkdir -p $(@D)
	cd $(@D) && $(SPIN) -a $(abspath $<) && $(CC) -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o update pan.c

model: $(B)/model/update
	cd $(<D) && ./update -m200000 | tee update.out
	@grep -q 'errors: 0' $(B)/model/update.out && ! grep -q 'max search depth' $(B)/model/update.out

.PHONY: model
