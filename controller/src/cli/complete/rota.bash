# bash completion for rota: names come from the controller, see `rota completions --help`.
_rota() {
    local words=() word glued=false whole i
    # Readline breaks `--env=prod` into three words: put them together again.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 1)) && { $glued || [[ $word == '=' ]]; }; then
            words[${#words[@]} - 1]+=$word
            if [[ $word == '=' ]]; then glued=true; else glued=false; fi
        else
            words+=("$word")
        fi
    done
    whole=${words[${#words[@]} - 1]}
    local rota=${words[0]/#\~\//$HOME/} line
    COMPREPLY=()
    while IFS= read -r line; do
        # Readline replaces only what is behind its last break.
        [[ $COMP_WORDBREAKS == *=* && $whole == *=* ]] && line=${line#"${whole%%=*}="}
        COMPREPLY+=("$line")
    done < <("$rota" complete bash "$((${#words[@]} - 1))" -- "${words[@]}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o nosort -F _rota rota 2>/dev/null || complete -F _rota rota
