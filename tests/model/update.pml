/*
 * UPDATE of an mbox, delivery, crash and recovery: no unmarked message is ever lost or doubled, whatever dies when.
 *
 * The steps have the names that spoold/journal.c has them under ("model: MOVE"). A cell stands for the octets of a
 * message, or of a part of one. The mailbox is 1 2 3 4, of which 1 and 3 are marked: it is to become 2 4. So `first`
 * is 0, `left` 2, and the doomed end the cells 2 and 3. What is delivered are twins of the doomed end first (3, then
 * 4), so that neither size nor content could tell a mailbox that was truncated, and had mail, from one that was not.
 *
 * A rewriter takes the lock as deliverers do, takes any cell out, and writes all the rest anew, whatever it finds: after a power cut, or a
 * kill of all of spoold, that may be a mailbox half moved. Then the journal may be set aside, with all that it has, and
 * messages may be there twice; but none that is unmarked, and that the rewriter itself has not taken out, is lost.
 * So that twins can be told apart here, what is delivered has the bit MAIL, which nobody else looks at.
 *
 * What memory has and what the disk has are two things. A write goes to memory, and to the disk or not: decided at
 * once, which gives every subset of what was not synced. A truncation that did not reach the disk may have zeroed the
 * rest of the block it cut (`block`: one cell or both of the doomed end), and what is appended then reaches the disk
 * only in that block. A kill (of Postern, between any two steps) leaves memory; a power cut (at any step of anybody)
 * takes it. In apply a call may fail, too, and what was done is undone; whoever dies in that leaves it to recovery,
 * which does it after all. What is gone is in the archive, if there is one, and what is not gone is not: the journal has a
 * note of the archive's end from before the first octet is put there. Deliverers take the lock, append, sync, and
 * only then say that they have the mail; or they cut off again what they had appended; or the power goes.
 */
#ifndef CRASHES
#define CRASHES 3
#endif
#ifndef MAILS
#define MAILS 3
#endif
#ifndef REWRITES
#define REWRITES 0
#endif
#define ROOM 12
#define HEAD 16				/* the head of the mark is on this cell, or its tail */
#define TAIL 32
#define MAIL 64
#define OCTETS(at)	(mem[at] & 63)
#define WHO(at)		(mem[at] & 79)
#define COMMITTED 1
#define SEALED 2

byte mem[ROOM], mem_size;		/* the mailbox */
byte disk[ROOM], disk_size;
bool undone;				/* truncated in memory; the disk does not know */
bool block;				/* both cells of the doomed end are in the block that the truncation cuts */

bool payload, payload_disk, header, header_disk;	/* the journal: what is saved, and the header */
byte extra_mem[4], extra_disk[4];	/* what was appended, saved */
byte turn_mem[2], turn_disk[2], phase_mem[2], phase_disk[2], count_mem[2], count_disk[2];	/* the slots */
byte under_mem[4], under_disk[4];	/* in them: what EXTEND found in what was then doomed */

byte expected[8], expected_size;	/* what deliverers have said they have, and what a power cut left of what they had not */
bool told;				/* the client was told +OK */
bool durable;				/* the journal was sealed: it must come to pass */
byte rewrites = REWRITES;
bool rewritten;
bool need[2] = true;			/* 2 and 4: nobody else has taken them out, and no journal was set aside that has them */
byte arch, arch_disk;			/* server-copy = archive: how much of what is marked is there; 2 is all */
bool note, note_disk;			/* in the journal: where the archive ended before */
byte crashes = CRASHES;
bool locked;
bool all_delivered;

inline write(at, what)
{
	mem[at] = what;
	if
	:: at >= mem_size -> mem_size = at + 1
	:: else
	fi;
	if
	:: true						/* not yet on disk */
	:: !undone && at < disk_size -> disk[at] = what
	:: !undone && at >= disk_size -> disk[at] = what; disk_size = at + 1
	:: !undone && at >= disk_size -> disk[at] = 0; disk_size = at + 1	/* its size, without its octets */
	:: undone && at < disk_size && at <= edge + block -> disk[at] = what
	fi
}

byte edge;				/* where the truncation that is undone was to */

inline truncate(size)
{
	mem_size = size;
	if
	:: disk_size > size ->
		if
		:: disk_size = size
		:: undone = true; edge = size
		:: undone = true; edge = size; disk[size] = 0;
			if
			:: block -> disk[size + 1] = 0
			:: else
			fi
		fi
	:: else
	fi
}

inline sync_mbox()
{
	i = 0;
	do
	:: i < ROOM -> disk[i] = (i < mem_size -> mem[i] : 0); i++
	:: else -> break
	od;
	disk_size = mem_size;
	undone = false;
	i = 0
}

inline sync_journal()
{
	payload_disk = payload;
	header_disk = header;
	note_disk = note;
	under_disk[0] = under_mem[0]; under_disk[1] = under_mem[1]; under_disk[2] = under_mem[2]; under_disk[3] = under_mem[3];
	turn_disk[0] = turn_mem[0]; phase_disk[0] = phase_mem[0]; count_disk[0] = count_mem[0];
	turn_disk[1] = turn_mem[1]; phase_disk[1] = phase_mem[1]; count_disk[1] = count_mem[1];
	extra_disk[0] = extra_mem[0]; extra_disk[1] = extra_mem[1]; extra_disk[2] = extra_mem[2]; extra_disk[3] = extra_mem[3]
}

/* Memory is what the disk has. */
inline power_cut()
{
	i = 0;
	do
	:: i < ROOM -> mem[i] = (i < disk_size -> disk[i] : 0); disk[i] = mem[i]; i++
	:: else -> break
	od;
	i = 0;
	mem_size = disk_size;
	undone = false;
	payload = payload_disk;
	header = header_disk;
	arch = arch_disk;
	note = note_disk;
	under_mem[0] = under_disk[0]; under_mem[1] = under_disk[1]; under_mem[2] = under_disk[2]; under_mem[3] = under_disk[3];
	turn_mem[0] = turn_disk[0]; phase_mem[0] = phase_disk[0]; count_mem[0] = count_disk[0];
	turn_mem[1] = turn_disk[1]; phase_mem[1] = phase_disk[1]; count_mem[1] = count_disk[1];
	extra_mem[0] = extra_disk[0]; extra_mem[1] = extra_disk[1]; extra_mem[2] = extra_disk[2]; extra_mem[3] = extra_disk[3]
}

inline expect(what)
{
	expected[expected_size] = what;
	expected_size++
}

/* A slot of the journal; a torn one has the turn 0. */
inline take_turn(p)
{
	turn++;
	phase = p;
	turn_mem[turn % 2] = turn; phase_mem[turn % 2] = p; count_mem[turn % 2] = extra;
	under_mem[2 * (turn % 2)] = under[0]; under_mem[2 * (turn % 2) + 1] = under[1];
	if
	:: true
	:: turn_disk[turn % 2] = turn; phase_disk[turn % 2] = p; count_disk[turn % 2] = extra;
		under_disk[2 * (turn % 2)] = under[0]; under_disk[2 * (turn % 2) + 1] = under[1]
	:: turn_disk[turn % 2] = 0
	fi
}

/* Postern may be killed here, or the power may go. */
#define MAY_DIE \
	if \
	:: true \
	:: crashes > 0 -> crashes--; goto crashed \
	fi

/* A call of apply fails here (a full disk, an error), once; recovery that fails is tried again, which is as if it had been killed. */
#define MAY_FAIL \
	if \
	:: true \
	:: applying -> goto undo \
	fi

/* The new content of cell n of [0, left + extra). */
#define NEW(n)	((n) == 0 -> 2 : ((n) == 1 -> 4 : extra_mem[(n) - 2]))
#define LEFT	(2 + extra)
#define SIZE	(4 + extra)
#define THERE	(mem_size >= SIZE && ((mem[LEFT + 1] & TAIL) != 0 || (mem[LEFT] == 0 && mem[LEFT + 1] == 0)))

/* Is the mailbox what this journal, in its phase, can have left of it? The mark is only a part of the cell that it is on. */
#define MOVED	(OCTETS(0) == 2 && OCTETS(1) == 4)
#define EITHER	((OCTETS(0) == 1 || OCTETS(0) == 2) && (OCTETS(1) == 2 || OCTETS(1) == 4))
#define EDGES	((mem[LEFT] & TAIL) == 0 && (mem[LEFT + 1] & HEAD) == 0)
#define DOOMED	((OCTETS(LEFT) == under[0] || OCTETS(LEFT) == (under[0] | HEAD)) && \
	(OCTETS(LEFT + 1) == under[1] || OCTETS(LEFT + 1) == (under[1] | TAIL)))

inline agree()
{
	there = phase == COMMITTED || THERE;
	agrees = mem_size >= (there -> SIZE : LEFT);
	if
	:: agrees && phase == COMMITTED && extra == 0 -> agrees = EITHER && EDGES
	:: agrees && phase == COMMITTED && extra > 0 -> agrees = EITHER && DOOMED
	:: agrees && phase == SEALED ->
		agrees = MOVED && (there || mem_size == LEFT || (mem[LEFT] & HEAD) == 0);
		n = 0;
		do
		:: n < extra -> agrees = agrees && OCTETS(2 + n) == (extra_mem[n] & 63); n++
		:: else -> break
		od;
		n = 0
	:: else
	fi
}

/*
 * The mailbox is as before or as after, and then what was delivered. Zeros (the size of a mail that was cut off by a
 * power cut, without its octets) are no mail, and may be there or not.
 */
inline check_exact()
{
	before = mem[0] == 1;
	after = !before;
	n = 0;
	i = 0;
	do
	:: i < mem_size && mem[i] == 0 -> i++
	:: i < mem_size && mem[i] != 0 ->
		if
		:: before && n < 4 -> assert(mem[i] == n + 1)
		:: after && n < 2 -> assert(mem[i] == 2 * n + 2)
		:: else ->
			assert(n - (before -> 4 : 2) < expected_size);
			assert(mem[i] == expected[n - (before -> 4 : 2)])
		fi;
		n++;
		i++
	:: else -> break
	od;
	assert(n == (before -> 4 : 2) + expected_size);
	assert(after || !(told || durable));
	assert(before || arch == 2);
	assert(after || arch == 0 || unsure)
}

inline is_there(who)
{
	i = 0;
	do
	:: i < mem_size && WHO(i) != who -> i++
	:: else -> break
	od;
	assert(i < mem_size)
}

/* After a rewriter: nothing is lost. */
inline check_there()
{
	if
	:: need[0] -> is_there(2)
	:: else
	fi;
	if
	:: need[1] -> is_there(4)
	:: else
	fi;
	n = 0;
	do
	:: n < expected_size ->
		if
		:: expected[n] != 0 -> is_there(expected[n])
		:: else
		fi;
		n++
	:: else -> break
	od
}

inline check()
{
	if
	:: rewritten -> check_there()
	:: else -> check_exact()
	fi;
	i = 0;
	n = 0;
	after = false;
	before = false
}

/* Nobody has to have this one any more. */
inline let_go(who)
{
	n = 0;
	do
	:: n < expected_size ->
		if
		:: expected[n] == (who) -> expected[n] = 0
		:: else
		fi;
		n++
	:: else -> break
	od;
	n = 0
}

proctype postern()
{
	byte i, n, k, extra, turn, phase, opens = 1, under[2];
	bool after, before, done, last, there, agrees, applying = true, unsure = false;

	/* apply: it has the lock, and has looked at what is there */
	/* NOTE */
	atomic { note = true; if :: true :: note_disk = true fi };
	MAY_DIE;
	atomic { sync_journal() };
	MAY_DIE;
	/* ARCHIVE: by the caller */
	atomic { arch = 1; if :: true :: arch_disk = 1 fi };
	MAY_DIE;
	atomic { arch = 2; if :: true :: arch_disk = 1 :: arch_disk = 2 fi };
	MAY_DIE;
	atomic { arch_disk = 2 };
	MAY_DIE;
	/* SAVE */
	atomic { payload = true; if :: true :: payload_disk = true fi };
	MAY_DIE;
	/* COMMIT */
	atomic { header = true; if :: true :: header_disk = true fi };
	MAY_DIE;
	atomic { sync_journal() };
	MAY_DIE;
	goto move;

undo:	/* UNDO: as it was, and only then is the journal no longer one. So does recovery with what was not sealed */
	applying = false;
	assert(!told);
	if
	:: turn > 0 ->
		atomic { take_turn(COMMITTED) };
		MAY_DIE;
		atomic { sync_journal() };
		MAY_DIE
	:: else
	fi;
	n = 0;
	do
	:: n < 4 ->
		atomic { k = (n < 2 -> n + 1 : WHO(n)); write(n, k); k = 0; n++ };
		MAY_DIE
	:: else -> break
	od;
	atomic { n = 0; sync_mbox() };
	MAY_DIE;
	/* ERASE */
	atomic {
		header = false; payload = false;
		if
		:: true
		:: header_disk = false; payload_disk = false
		fi;
		durable = false
	};
	MAY_DIE;
	atomic { sync_journal(); unsure = true; check(); unsure = false; assert(mem[0] == 1) };
	MAY_DIE;
	/* UNARCHIVE: by the caller, once it is sure that all is as it was */
	atomic { arch = 0; if :: true :: arch_disk = 0 fi };
	MAY_DIE;
	atomic { arch_disk = 0 };
	MAY_DIE;
	goto dropping;

crashed:
	atomic {
		locked = false;
		applying = false;
		if
		:: true			/* killed */
		:: power_cut()
		fi
	};

open:	/* recover */
	atomic { !locked -> locked = true; i = 0; n = 0; extra = 0; turn = 0; phase = 0; done = false; under[0] = 0; under[1] = 0 };
	atomic { sync_journal(); sync_mbox() };
	MAY_DIE;
	atomic {
		if
		:: !header ->
			goto unarchive				/* NOTHING */
		:: header && !payload ->
			assert(!durable);
			unsure = true;				/* the archive is let alone */
			goto dropping				/* TORN */
		:: else
		fi;
		phase = COMMITTED;
		if
		:: turn_mem[0] > turn_mem[1] -> turn = turn_mem[0]; phase = phase_mem[0]; extra = count_mem[0];
			under[0] = under_mem[0]; under[1] = under_mem[1]
		:: turn_mem[1] > turn_mem[0] -> turn = turn_mem[1]; phase = phase_mem[1]; extra = count_mem[1];
			under[0] = under_mem[2]; under[1] = under_mem[3]
		:: else
		fi;
		agree();
		assert(agrees || rewritten);
		if
		:: !agrees -> goto foreign
		:: else
		fi;
		if
		:: !there ->
			durable = true;
			done = true;
			goto dropping				/* DONE */
		:: there && phase == COMMITTED && extra == 0 ->
			assert(!durable);
			goto undo
		:: else
		fi;
		durable = true
	};
	if
	:: mem_size > SIZE ->
		/* EXTEND */
		atomic {
			n = extra;
			do
			:: n < mem_size - 4 ->
				extra_mem[n] = mem[4 + n];
				if :: true :: extra_disk[n] = mem[4 + n] fi;
				n++
			:: else -> break
			od;
			n = 0
		};
		MAY_DIE;
		atomic { sync_journal(); extra = mem_size - 4; under[0] = OCTETS(LEFT); under[1] = OCTETS(LEFT + 1); take_turn(COMMITTED) };
		MAY_DIE;
		atomic { sync_journal() };
		MAY_DIE
	:: else
	fi;
	if
	:: phase == SEALED -> goto truncating
	:: else
	fi;

move:
	phase = COMMITTED;
	n = 0;
	do
	:: n < LEFT ->
		/* MOVE */
		atomic { write(n, NEW(n)); n++ };
		MAY_FAIL;
		MAY_DIE
	:: else -> break
	od;
	n = 0;
	/* MARK */
	atomic { k = mem[LEFT] | HEAD; write(LEFT, k); k = 0 };
	MAY_DIE;
	atomic { k = mem[LEFT + 1] | TAIL; write(LEFT + 1, k); k = 0 };
	MAY_FAIL;
	MAY_DIE;
	atomic { sync_mbox() };
	MAY_DIE;
	/* SEAL */
	atomic { take_turn(SEALED) };
	MAY_FAIL;
	MAY_DIE;
	atomic { sync_journal(); durable = !applying };
	MAY_FAIL;
	if
	:: true
	:: atomic { applying -> told = true; durable = true; applying = false }	/* journal_promise: the answer may leave now */
	fi;
	MAY_DIE;
	MAY_FAIL;

truncating:
	/* TRUNCATE */
	atomic { truncate(LEFT) };
	MAY_DIE;
	atomic { sync_mbox(); done = true };
	applying = false;
	MAY_DIE;

	goto dropping;

foreign:
	/* What recovery does not act on is set aside, with what it has. The mark is taken off where it is where it was put. */
	atomic {
		if
		:: mem_size > LEFT && (mem[LEFT] & HEAD) != 0 -> mem[LEFT] = mem[LEFT] & 111; disk[LEFT] = mem[LEFT]
		:: else
		fi;
		if
		:: mem_size > LEFT + 1 && (mem[LEFT + 1] & TAIL) != 0 -> mem[LEFT + 1] = mem[LEFT + 1] & 95; disk[LEFT + 1] = mem[LEFT + 1]
		:: else
		fi;
		need[0] = false; need[1] = false;
		k = 0;
		do
		:: k < extra -> let_go(extra_mem[k] & 79); k++
		:: else -> break
		od;
		k = 0
	};
	goto dropping;

unarchive:
	/* UNARCHIVE: what the note says was appended, and is still in the mailbox, as it is: nothing was committed */
	if
	:: note ->
		atomic { arch = (mem[0] == 1 -> 0 : arch); if :: true :: mem[0] == 1 -> arch_disk = 0 fi };
		MAY_DIE;
		atomic { arch_disk = arch }
	:: else
	fi;
	MAY_DIE;

dropping:
	/* DROP: by the caller. On the disk it may come back; then it is found sealed, and the mark gone. */
	atomic {
		check();
		told = told || done;
		header = false; payload = false; note = false;
		turn_mem[0] = 0; turn_mem[1] = 0;
		if
		:: true
		:: header_disk = false; payload_disk = false; note_disk = false; turn_disk[0] = 0; turn_disk[1] = 0
		fi;
		locked = false
	};
	/* Opened again, at some time and when all mail is there. */
	if
	:: opens > 0 -> opens--; goto open
	:: all_delivered -> opens = 0;
		if
		:: !last -> last = true; goto open
		:: else
		fi
	fi
}

/* The power goes while a mail is being appended, which nobody was told of: of what is left of it only say that it is there. */
inline power_in_delivery(start)
{
	if
	:: undone ->
		/* The doomed end came back. If it is to be taken for mail (the block held all of it, and the mail is over it), then so be it. */
		if
		:: (disk[edge + 1] & TAIL) != 0 || (disk[edge] == 0 && disk[edge + 1] == 0)
		:: else ->
			assert(disk[edge] != 0);
			expect(disk[edge]);
			if
			:: disk[edge + 1] != 0 -> expect(disk[edge + 1])
			:: else
			fi
		fi
	:: !undone && disk_size > start && disk[start] != 0 -> expect(disk[start])
	:: else
	fi;
	power_cut()
}

proctype deliverer()
{
	byte i, mails, start, what;

	do
	:: mails == MAILS -> break
	:: mails < MAILS ->
		atomic { !locked -> locked = true; start = mem_size; what = MAIL + 3 + mails };
		atomic { write(start, what) };
		if
		:: atomic { sync_mbox(); expect(what); mails++ }
		:: atomic { truncate(start); sync_mbox(); mails++ }		/* rolled back */
		:: atomic { crashes > 0 -> crashes--; power_in_delivery(start); mails++ }
		fi;
		atomic { locked = false; start = 0; what = 0 }
	od;
	all_delivered = true
}

/* Another program that takes a message out, and writes what it finds anew. */
proctype rewriter()
{
	byte i, n, k;

	do
	:: rewrites == 0 -> break
	:: rewrites > 0 ->
		atomic {
			!locked -> rewrites--;
			do
			:: k + 1 < mem_size -> k++
			:: break
			od;
			if
			:: WHO(k) == 2 -> need[0] = false
			:: WHO(k) == 4 -> need[1] = false
			:: else -> let_go(WHO(k))
			fi;
			do
			:: k + 1 < mem_size -> mem[k] = mem[k + 1]; k++
			:: else -> break
			od;
			mem_size--;
			rewritten = true;
			k = 0;
			sync_mbox()
		}
	od
}

init
{
	atomic {
		mem[0] = 1; mem[1] = 2; mem[2] = 3; mem[3] = 4; mem_size = 4;
		disk[0] = 1; disk[1] = 2; disk[2] = 3; disk[3] = 4; disk_size = 4;
		if
		:: block = true
		:: block = false
		fi;
		locked = true;
		run postern();
		run rewriter();
		run deliverer()
	}
}
