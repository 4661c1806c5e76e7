//! For zsh, from 5.0 on.

use super::{Place, Value, flags_with, formats, long, quoted};

const BEGIN: &str = r#"#compdef etchedutl
# zsh completion for etchedutl. To load it: source <(etchedutl completion zsh)
_etchedutl() {
    local at="" flag="" word file=""
    local -i place
    local -a commands flags
    for (( place = 2; place < CURRENT; place++ )); do
        if [[ -n $flag ]]; then
            flag=""
            continue
        fi
        word=${words[place]}
        case $word in
            (@VALUED@) flag=$word ;;
            (-*) ;;
            (*)
                case "${at:+$at }$word" in
                    (@PLACES@) at="${at:+$at }$word" ;;
                esac
                ;;
        esac
    done
    if compset -P '(@LONG_FOLDERS@)='; then
        flag=@FOLDER@
    elif compset -P '(@LONG_FORMATTED@)='; then
        flag=@FORMAT@
    fi
    case $flag in
        ("") ;;
        (@FOLDERS@) _files -/; return ;;
        (@FORMATTED@) compadd -- @FORMATS@; return ;;
        (*) return 1 ;;
    esac
    case $at in
"#;
const END: &str = r#"    esac
    if [[ ${words[CURRENT]} == -* ]]; then
        _describe -o flag flags
    elif [[ -n $file ]]; then
        _files
    else
        _describe command commands
    fi
}
if [[ ${funcstack[1]} == _etchedutl ]]; then
    _etchedutl "$@"
else
    compdef _etchedutl etchedutl
fi
"#;

pub(super) fn script(places: &[Place]) -> String {
    let folders = flags_with(places, |value| value == Value::Folder);
    let formatted = flags_with(places, |value| value == Value::Format);
    let named: Vec<String> = places[1..].iter().map(|place| format!("\"{}\"", place.at)).collect();
    let mut script = BEGIN
        .replace("@VALUED@", &flags_with(places, |value| value != Value::Nothing).join("|"))
        .replace("@PLACES@", &named.join("|"))
        .replace("@LONG_FOLDERS@", &long(&folders).join("|"))
        .replace("@LONG_FORMATTED@", &long(&formatted).join("|"))
        .replace("@FOLDER@", long(&folders).first().unwrap_or(&"-"))
        .replace("@FORMAT@", long(&formatted).first().unwrap_or(&"-"))
        .replace("@FOLDERS@", &folders.join("|"))
        .replace("@FORMATTED@", &formatted.join("|"))
        .replace("@FORMATS@", &formats());
    for place in places {
        let commands: Vec<String> =
            place.words.iter().map(|(word, about)| described(word, about)).collect();
        let flags = place.flags.iter().flat_map(|flag| {
            let short = flag.short.map(|short| described(&format!("-{short}"), flag.help));
            [Some(described(&format!("--{}", flag.name), flag.help)), short].into_iter().flatten()
        });
        script += &format!(
            "        ({}) commands=({}) flags=({}) file={} ;;\n",
            quoted(&place.at, "'\\''"),
            commands.join(" "),
            flags.collect::<Vec<_>>().join(" "),
            if place.file { "yes" } else { "" },
        );
    }
    script + END
}

/// A word and what it is for, as `_describe` takes them.
fn described(word: &str, about: &str) -> String {
    let colon = if about.is_empty() { "" } else { ":" };
    quoted(&format!("{word}{colon}{}", about.replace(':', "\\:")), "'\\''")
}
