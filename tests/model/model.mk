# The protocol of UPDATE, delivery, crash and recovery, every way it can go (spin). `make model`.

SPIN ?= spin

$(B)/model/update: tests/model/update.pml
	@mkdir -p $(@D)
	cd $(@D) && $(SPIN) -a $(abspath $<) && $(CC) -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o update pan.c
# The same with another program that rewrites the mailbox: fewer crashes and mails, or it takes too long.
$(B)/model/rewriter: tests/model/update.pml
	@mkdir -p $(@D)/rewritten
	cd $(@D)/rewritten && $(SPIN) -DCRASHES=2 -DMAILS=2 -DREWRITES=1 -a $(abspath $<) && \
		$(CC) -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o ../rewriter pan.c

model: $(B)/model/update $(B)/model/rewriter
	cd $(<D) && ./update -m200000 | tee update.out && ./rewriter -m200000 | tee rewriter.out
	@for m in update rewriter; do grep -q 'errors: 0' $(B)/model/$$m.out && ! grep -q 'max search depth' $(B)/model/$$m.out || exit 1; done

.PHONY: model
