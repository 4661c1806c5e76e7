// Package descriptors writes protobuf descriptors down as sorted text, one line for each thing
// that two implementations of a protocol must agree on. Both sides of the comparison in the test
// go through it, so nothing depends on two programs writing the same form.
package descriptors

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Files is what a registry of descriptors offers.
type Files interface {
	RangeFiles(func(protoreflect.FileDescriptor) bool)
}

// Packages lists the protobuf packages for which keep says yes.
func Packages(files Files, keep func(protoreflect.FileDescriptor) bool) []string {
	var names []string
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if keep(file) {
			names = append(names, string(file.Package()))
		}
		return true
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// Describe writes one package down. File names, order and comments are left out: they are not seen
// by the other side of a connection.
func Describe(files Files, name string) []string {
	var lines []string
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if string(file.Package()) == name {
			lines = append(lines, inFile(file)...)
		}
		return true
	})
	slices.Sort(lines)
	return lines
}

func inFile(file protoreflect.FileDescriptor) []string {
	lines := append(messages(file.Messages()), enums(file.Enums())...)
	for i := range file.Services().Len() {
		service := file.Services().Get(i)
		lines = append(lines, fmt.Sprintf("service %s", service.FullName()))
		for j := range service.Methods().Len() {
			lines = append(lines, method(service.Methods().Get(j)))
		}
	}
	for i := range file.Extensions().Len() {
		lines = append(lines, fmt.Sprintf("extension %s", field(file.Extensions().Get(i))))
	}
	return lines
}

func messages(all protoreflect.MessageDescriptors) []string {
	var lines []string
	for i := range all.Len() {
		message := all.Get(i)
		lines = append(lines, fmt.Sprintf("message %s", message.FullName()))
		for j := range message.Fields().Len() {
			lines = append(lines, "field "+field(message.Fields().Get(j)))
		}
		for j := range message.ReservedRanges().Len() {
			numbers := message.ReservedRanges().Get(j)
			lines = append(lines,
				fmt.Sprintf("reserved %s %d..%d", message.FullName(), numbers[0], numbers[1]-1))
		}
		for j := range message.ReservedNames().Len() {
			lines = append(lines,
				fmt.Sprintf("reserved %s %q", message.FullName(), message.ReservedNames().Get(j)))
		}
		lines = append(lines, messages(message.Messages())...)
		lines = append(lines, enums(message.Enums())...)
	}
	return lines
}

func enums(all protoreflect.EnumDescriptors) []string {
	var lines []string
	for i := range all.Len() {
		enum := all.Get(i)
		lines = append(lines, fmt.Sprintf("enum %s closed=%t", enum.FullName(), enum.IsClosed()))
		for j := range enum.Values().Len() {
			value := enum.Values().Get(j)
			lines = append(lines,
				fmt.Sprintf("value %s.%s = %d", enum.FullName(), value.Name(), value.Number()))
		}
	}
	return lines
}

func field(field protoreflect.FieldDescriptor) string {
	kind := field.Kind().String()
	if field.Message() != nil {
		kind += " " + string(field.Message().FullName())
	}
	if field.Enum() != nil {
		kind += " " + string(field.Enum().FullName())
	}
	oneof := "-"
	if field.ContainingOneof() != nil {
		oneof = string(field.ContainingOneof().Name())
	}
	fallback := "-"
	if field.HasDefault() {
		fallback = field.Default().String()
	}
	return fmt.Sprintf("%s = %d %s %s json=%s oneof=%s presence=%t packed=%t default=%s",
		field.FullName(), field.Number(), field.Cardinality(), kind, field.JSONName(), oneof,
		field.HasPresence(), field.IsPacked(), fallback)
}

func method(method protoreflect.MethodDescriptor) string {
	stream := map[bool]string{true: "stream ", false: ""}
	return fmt.Sprintf("rpc %s (%s%s) returns (%s%s)", method.FullName(),
		stream[method.IsStreamingClient()], method.Input().FullName(),
		stream[method.IsStreamingServer()], method.Output().FullName())
}
