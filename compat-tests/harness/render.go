package harness

import (
	"crypto/sha256"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Line is one fact of a step: where it stands and what it says.
type Line struct{ Path, Value string }

// render flattens a message into lines `field.sub[0].leaf = value`. A message that is present but
// empty has a line of its own; a scalar that is absent has none; fields the descriptor does not
// know are shown too.
func render(m proto.Message) []Line {
	var lines []Line
	if m != nil {
		walk("", m.ProtoReflect(), &lines)
	}
	return lines
}

func walk(at string, m protoreflect.Message, lines *[]Line) {
	before := len(*lines)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if !m.Has(field) {
			continue
		}
		path := string(field.Name())
		if at != "" {
			path = at + "." + path
		}
		walkField(path, field, m.Get(field), lines)
	}
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		*lines = append(*lines, Line{at + ".unknown", fmt.Sprintf("%x", []byte(unknown))})
	}
	if len(*lines) == before {
		*lines = append(*lines, Line{at, "{}"})
	}
}

func walkField(path string, field protoreflect.FieldDescriptor, v protoreflect.Value, lines *[]Line) {
	switch {
	case field.IsMap():
		v.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			walkValue(path+"["+key.String()+"]", field.MapValue(), value, lines)
			return true
		})
		sort.Slice(*lines, func(i, j int) bool { return (*lines)[i].Path < (*lines)[j].Path })
	case field.IsList():
		for i := range v.List().Len() {
			walkValue(fmt.Sprintf("%s[%d]", path, i), field, v.List().Get(i), lines)
		}
	default:
		walkValue(path, field, v, lines)
	}
}

func walkValue(path string, field protoreflect.FieldDescriptor, v protoreflect.Value, lines *[]Line) {
	switch field.Kind() {
	case protoreflect.MessageKind:
		walk(path, v.Message(), lines)
	case protoreflect.BytesKind:
		*lines = append(*lines, Line{path, short(v.Bytes())})
	case protoreflect.StringKind:
		*lines = append(*lines, Line{path, short([]byte(v.String()))})
	case protoreflect.EnumKind:
		name := strconv.Itoa(int(v.Enum()))
		if known := field.Enum().Values().ByNumber(v.Enum()); known != nil {
			name = string(known.Name())
		}
		*lines = append(*lines, Line{path, name})
	default:
		*lines = append(*lines, Line{path, v.String()})
	}
}

// short is the text itself, or the length and a digest of a long one.
func short(b []byte) string {
	const whole = 300
	if len(b) > whole {
		return fmt.Sprintf("%d bytes, sha256 %x", len(b), sha256.Sum256(b))
	}
	if utf8.Valid(b) {
		return strconv.Quote(string(b))
	}
	return fmt.Sprintf("hex %x", b)
}

// textLines makes one line per line of a text.
func textLines(text string) []Line {
	var lines []Line
	for i, line := range strings.Split(text, "\n") {
		lines = append(lines, Line{fmt.Sprintf("line %d", i+1), line})
	}
	return lines
}
