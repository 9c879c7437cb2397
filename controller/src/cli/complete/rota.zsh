#compdef rota
# zsh completion for rota: names come from the controller, see `rota completions --help`.
_rota() {
    local rota=${words[1]/#\~\//$HOME/} line
    local -a ends opens
    # Each line is VALUE, or VALUE:DESCRIPTION, with colons inside of them escaped.
    for line in "${(@f)$("$rota" complete zsh $((CURRENT - 1)) -- "${(@)words[1,CURRENT]}" 2>/dev/null)}"; do
        [[ -z $line ]] && continue
        case ${${line//\\:/}%%:*} in
            (*[/=]) opens+=("$line") ;;
            (*) ends+=("$line") ;;
        esac
    done
    (( $#ends )) && _describe -V rota ends
    (( $#opens )) && _describe -V rota opens -S ''
    (( $#ends + $#opens ))
}
if [[ $funcstack[1] == _rota ]]; then
    _rota "$@"
else
    compdef _rota rota
fi
