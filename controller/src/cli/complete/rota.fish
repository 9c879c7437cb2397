# fish completion for rota: names come from the controller, see `rota completions --help`.
function __rota_complete
    set -l before (commandline --current-process --tokenize --cut-at-cursor)
    set -l last (commandline --current-token --cut-at-cursor)
    set -l rota (string replace --regex '^~/' "$HOME/" -- $before[1])
    $rota complete fish (count $before) -- $before "$last" 2>/dev/null
end
complete --command rota --no-files --keep-order --arguments '(__rota_complete)'
