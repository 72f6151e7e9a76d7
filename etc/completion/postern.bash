# Completion for bash of Postern's programs. Installed under each program's name, of which bash loads the one that is asked for.

# Options that all programs have; more are those of one.
_postern_common='-c -t -V -h'

# Session ids and users of sessions that run, for those who may ask.
_postern_sessions()
{
	spoolctl who 2>/dev/null | sed -n 's/^session=\([0-9a-f]*\) .*/\1/p'
}

_postern_users()
{
	{ authctl list 2>/dev/null | cut -d' ' -f1; getent passwd 2>/dev/null | awk -F: '$3 >= 1000 && $3 < 65000 { print $1 }'; } | sort -u
}

_postern_words()
{
	COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_postern_files()
{
	compopt -o filenames 2>/dev/null
	COMPREPLY=($(compgen -f -- "$cur"))
}

# The command and the words after it, of a tool, without -c FILE and other options: into `command` and `count`.
_postern_position()
{
	local i
	command= count=0
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-c|--maildrop|--uid|--opslimit|--memlimit|--iterations|--expires|--from|--output|--connect|--server-copy|--server|--domain|--smtp-server|--port) ((i++)) ;;
		-*) ;;
		*)
			if [[ -z $command ]]; then
				command=${COMP_WORDS[i]}
			elif [[ $command == app || $command == cert ]]; then
				command+=" ${COMP_WORDS[i]}"
			else
				((count++))
			fi ;;
		esac
	done
}

_spoolctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command count
	case $prev in
	-c|--output) _postern_files; return ;;
	--connect) _postern_words 'localhost:110 localhost:995'; return ;;
	esac
	_postern_position
	if [[ -z $command ]]; then
		[[ $cur == -* ]] && _postern_words "$_postern_common" || _postern_words 'who end show rebuild recover expire uidl-diff metrics doctor'
		return
	fi
	if [[ $cur == -* ]]; then
		case $command in
		who) _postern_words '-w --watch --json' ;;
		show|uidl-diff) _postern_words '--json' ;;
		metrics) _postern_words '--http --output' ;;
		doctor) _postern_words '--connect --json' ;;
		esac
		return
	fi
	case $command,$count in
	end,0) _postern_words "$(_postern_sessions)" ;;
	show,0|rebuild,*|expire,*|uidl-diff,0|doctor,0) _postern_words "$(_postern_users)" ;;
	uidl-diff,1) _postern_files ;;
	esac
}

_authctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command count
	case $prev in
	-c) _postern_files; return ;;
	--maildrop) _postern_words 'mbox: maildir: auto:'; return ;;
	--server-copy) _postern_words 'as-client-says keep mark-read archive delete default'; return ;;
	--uid|--opslimit|--memlimit|--iterations|--expires|--from|--server|--domain|--smtp-server|--port) return ;;
	esac
	_postern_position
	if [[ -z $command ]]; then
		[[ $cur == -* ]] && _postern_words "$_postern_common" ||
			_postern_words 'add set passwd del lock unlock list test app cert secret client-config import'
		return
	fi
	if [[ $cur == -* ]]; then
		case $command in
		add) _postern_words '--maildrop --uid --server-copy --opslimit --memlimit --iterations' ;;
		set) _postern_words '--maildrop --uid --server-copy' ;;
		passwd) _postern_words '--opslimit --memlimit --iterations' ;;
		list|'app list'|'cert list') _postern_words '--json' ;;
		client-config) _postern_words '--autoconfig --mobileconfig --dns --server --domain --smtp-server --port --starttls' ;;
		'app add') _postern_words '--expires --from --no-delete' ;;
		import) _postern_words '--replace --opslimit --memlimit --iterations' ;;
		esac
		return
	fi
	case $command,$count in
	app,*|cert,*) _postern_words 'add list del' ;;
	import,0) _postern_words 'shadow dovecot courier' ;;
	import,1|'cert add,1') _postern_files ;;
	set,0|passwd,0|del,0|lock,0|unlock,0|test,0|secret,0|client-config,0|'app '*,0|'cert '*,0) _postern_words "$(_postern_users)" ;;
	esac
}

_postern_daemon()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	case $prev in
	-c) _postern_files ;;
	-l) _postern_words '127.0.0.1:110 [::1]:110 0.0.0.0:110 [::]:110' ;;
	-s) _postern_words '127.0.0.1:995 [::1]:995 0.0.0.0:995 [::]:995' ;;
	*)
		case ${1##*/} in
		pop3d) _postern_words "$_postern_common -l -s -S" ;;
		spoold) _postern_words "$_postern_common -r" ;;
		*) _postern_words "$_postern_common" ;;
		esac ;;
	esac
}

complete -F _spoolctl spoolctl
complete -F _authctl authctl
complete -F _postern_daemon pop3d authd spoold
