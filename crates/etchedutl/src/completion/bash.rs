//! For bash, from 3.2 on.

use super::{Place, Value, flags_with, formats};

/// What does not depend on the commands: where on the line we are.
const BEGIN: &str = r#"# bash completion for etchedutl. To load it: source <(etchedutl completion bash)
_etchedutl() {
    local word="${COMP_WORDS[COMP_CWORD]}" flag="" at="" words="" flags="" file="" place IFS=$'\n'
    COMPREPLY=()
    for (( place = 1; place < COMP_CWORD; place++ )); do
        if [[ -n $flag ]]; then
            # bash makes --flag=value three words.
            [[ ${COMP_WORDS[place]} == "=" ]] || flag=""
            continue
        fi
        case "${COMP_WORDS[place]}" in
            @VALUED@) flag="${COMP_WORDS[place]}" ;;
            -*) ;;
            *)
                case "${at:+$at }${COMP_WORDS[place]}" in
                    @PLACES@) at="${at:+$at }${COMP_WORDS[place]}" ;;
                esac
                ;;
        esac
    done
    [[ $word == "=" ]] && word=""
    case "$flag" in
        "") ;;
        @FOLDERS@)
            compopt -o filenames 2>/dev/null
            COMPREPLY=( $(compgen -d -- "$word") )
            return
            ;;
        @FORMATTED@)
            COMPREPLY=( $(compgen -W "@FORMATS@" -- "$word") )
            return
            ;;
        *) return ;;
    esac
    case "$at" in
"#;
const END: &str = r#"    esac
    if [[ $word == -* ]]; then
        COMPREPLY=( $(compgen -W "$flags" -- "$word") )
    elif [[ -n $file ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=( $(compgen -f -- "$word") )
    else
        COMPREPLY=( $(compgen -W "$words" -- "$word") )
    fi
}
complete -F _etchedutl etchedutl
"#;

pub(super) fn script(places: &[Place]) -> String {
    let any = |names: Vec<String>| names.join("|");
    let named: Vec<String> = places[1..].iter().map(|place| format!("\"{}\"", place.at)).collect();
    let mut script = BEGIN
        .replace("@VALUED@", &any(flags_with(places, |value| value != Value::Nothing)))
        .replace("@PLACES@", &any(named))
        .replace("@FOLDERS@", &any(flags_with(places, |value| value == Value::Folder)))
        .replace("@FORMATTED@", &any(flags_with(places, |value| value == Value::Format)))
        .replace("@FORMATS@", &formats().replace(' ', "\n"));
    for place in places {
        let words: Vec<&str> = place.words.iter().map(|(word, _)| *word).collect();
        let flags: Vec<String> = place
            .flags
            .iter()
            .map(|flag| format!("--{}", flag.name))
            .chain(
                place.flags.iter().filter_map(|flag| flag.short).map(|short| format!("-{short}")),
            )
            .collect();
        script += &format!(
            "        \"{}\") words=$'{}' flags=$'{}' file=\"{}\" ;;\n",
            place.at,
            words.join("\\n"),
            flags.join("\\n"),
            if place.file { "yes" } else { "" },
        );
    }
    script + END
}
