//! What the compiled `.proto` files say: messages, their fields, methods.
//!
//! Read once, when something asks first, from the descriptors that `cargo codegen` writes beside the types. Whoever
//! handles messages by their names, as the JSON codec does, needs no code for each type then.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;

/// All packages of `proto/`.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let set = FileSet::decode(&include_bytes!("generated/descriptors.binpb")[..]);
    Schema::of(&set.expect("cargo codegen writes descriptors that can be read"))
});

/// Messages, enums and methods of all packages.
#[derive(Debug, Default)]
pub struct Schema {
    messages: Vec<Message>,
    enums: Vec<Vec<(String, i32)>>,
    /// By `package.Service/Method`.
    methods: HashMap<String, Method>,
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// With its package.
    pub name: String,
    /// In the order of the `.proto` file.
    pub fields: Vec<Field>,
    /// Names of the groups of which only one field may be set.
    pub oneofs: Vec<String>,
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// As in the `.proto` file.
    pub name: String,
    /// In lowerCamelCase.
    pub json_name: String,
    /// On the wire.
    pub number: u32,
    /// Type of one value.
    pub kind: Kind,
    /// A list.
    pub repeated: bool,
    /// Index into [`Message::oneofs`].
    pub oneof: Option<usize>,
}

/// Types that etcd's messages have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the protobuf type of that name")]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
}

/// An enum of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnumId(usize);

/// A message of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId(usize);

/// A method of a service.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// What is asked.
    pub input: MessageId,
    /// What is answered.
    pub output: MessageId,
    /// Whether the client sends many messages.
    pub client_streams: bool,
    /// Whether the server sends many messages.
    pub server_streams: bool,
}

impl Schema {
    /// The schema of this crate.
    pub fn get() -> &'static Self {
        &SCHEMA
    }

    /// The method at `package.Service/Method`.
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    /// The paths of all methods, in order.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        let mut paths: Vec<_> = self.methods.keys().map(String::as_str).collect();
        paths.sort_unstable();
        paths.into_iter()
    }

    /// The message called `name`, package included.
    pub fn find(&self, name: &str) -> Option<MessageId> {
        self.messages.iter().position(|message| message.name == name).map(MessageId)
    }

    /// A message.
    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0]
    }

    /// The number of a value of an enum.
    pub fn enum_number(&self, id: EnumId, name: &str) -> Option<i32> {
        self.enums[id.0].iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }

    /// The name of a value of an enum.
    pub fn enum_name(&self, id: EnumId, number: i32) -> Option<&str> {
        self.enums[id.0].iter().find(|(_, known)| *known == number).map(|(name, _)| name.as_str())
    }

    fn of(set: &FileSet) -> Self {
        let mut names = Names::default();
        for file in &set.file {
            names.add(&format!(".{}", file.package), &file.message_type, &file.enum_type);
        }
        let mut schema = Self { enums: names.enums, ..Self::default() };
        for (name, message) in names.messages {
            schema.messages.push(Message::of(name, message, &names.ids));
        }
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("{}.{}/{}", file.package, service.name, method.name);
                    schema.methods.insert(path, Method::of(method, &names.ids));
                }
            }
        }
        schema
    }
}

impl Message {
    fn of(name: String, message: &MessageSource, ids: &HashMap<String, Kind>) -> Self {
        assert!(
            message.field.len() <= FIELDS_MAX,
            "{name}: whoever counts fields in bits needs more"
        );
        let fields = message.field.iter().map(|field| Field::of(field, ids)).collect();
        let oneofs = message.oneof_decl.iter().map(|oneof| oneof.name.clone()).collect();
        Self { name, fields, oneofs }
    }
}

impl Field {
    fn of(field: &FieldSource, ids: &HashMap<String, Kind>) -> Self {
        Self {
            name: field.name.clone(),
            json_name: field.json_name.clone(),
            number: u32::try_from(field.number).expect("numbers of fields are positive"),
            kind: Kind::of(field, ids),
            repeated: field.label == LABEL_REPEATED,
            oneof: field.oneof_index.and_then(|index| usize::try_from(index).ok()),
        }
    }

    /// Whether the field can be set to its zero value: else that is the same as not set.
    pub fn has_presence(&self) -> bool {
        self.oneof.is_some() || matches!(self.kind, Kind::Message(_))
    }
}

impl Kind {
    fn of(field: &FieldSource, ids: &HashMap<String, Self>) -> Self {
        match field.r#type {
            3 => Self::Int64,
            4 => Self::Uint64,
            5 => Self::Int32,
            8 => Self::Bool,
            9 => Self::String,
            12 => Self::Bytes,
            13 => Self::Uint32,
            11 | 14 => *ids.get(&field.type_name).expect("a type that is named is there"),
            other => unreachable!("no message of etcd has a field of type {other}"),
        }
    }

    /// The type's name in `.proto` files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Enum(_) => "enum",
            Self::Message(_) => "message",
        }
    }
}

impl Method {
    fn of(method: &MethodSource, ids: &HashMap<String, Kind>) -> Self {
        let id = |name: &String| match ids.get(name) {
            Some(Kind::Message(id)) => *id,
            _ => unreachable!("methods take and answer messages"),
        };
        Self {
            input: id(&method.input_type),
            output: id(&method.output_type),
            client_streams: method.client_streaming,
            server_streams: method.server_streaming,
        }
    }
}

/// Everything that has a name, before references to it are resolved.
#[derive(Default)]
struct Names<'a> {
    /// By the name with a leading dot, as references have it.
    ids: HashMap<String, Kind>,
    messages: Vec<(String, &'a MessageSource)>,
    enums: Vec<Vec<(String, i32)>>,
}

impl<'a> Names<'a> {
    fn add(&mut self, scope: &str, messages: &'a [MessageSource], enums: &'a [EnumSource]) {
        for source in enums {
            let values = source.value.iter().map(|value| (value.name.clone(), value.number));
            self.ids
                .insert(format!("{scope}.{}", source.name), Kind::Enum(EnumId(self.enums.len())));
            self.enums.push(values.collect());
        }
        for source in messages {
            let name = format!("{scope}.{}", source.name);
            let id = MessageId(self.messages.len());
            self.messages.push((name[1..].to_owned(), source));
            self.ids.insert(name.clone(), Kind::Message(id));
            self.add(&name, &source.nested_type, &source.enum_type);
        }
    }
}

const LABEL_REPEATED: i32 = 3;
/// Most fields of a message.
pub(crate) const FIELDS_MAX: usize = 64;

/// The parts of `google.protobuf.FileDescriptorSet` that are needed here.
#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<FileSource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileSource {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<MessageSource>,
    #[prost(message, repeated, tag = "5")]
    enum_type: Vec<EnumSource>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<ServiceSource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MessageSource {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    field: Vec<FieldSource>,
    #[prost(message, repeated, tag = "3")]
    nested_type: Vec<Self>,
    #[prost(message, repeated, tag = "4")]
    enum_type: Vec<EnumSource>,
    #[prost(message, repeated, tag = "8")]
    oneof_decl: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldSource {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    r#type: i32,
    #[prost(string, tag = "6")]
    type_name: String,
    #[prost(int32, optional, tag = "9")]
    oneof_index: Option<i32>,
    #[prost(string, tag = "10")]
    json_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumSource {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    value: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceSource {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<MethodSource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MethodSource {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    input_type: String,
    #[prost(string, tag = "3")]
    output_type: String,
    #[prost(bool, tag = "5")]
    client_streaming: bool,
    #[prost(bool, tag = "6")]
    server_streaming: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_leads_to_its_messages_and_their_fields() {
        let schema = Schema::get();
        let watch = schema.method("etcdserverpb.Watch/Watch").expect("is there");
        assert!(watch.client_streams && watch.server_streams);
        let answer = schema.message(watch.output);
        assert_eq!(answer.name, "etcdserverpb.WatchResponse");
        let field = answer.fields.iter().find(|field| field.number == 5).expect("is there");
        assert_eq!((&*field.name, &*field.json_name), ("compact_revision", "compactRevision"));
        assert!(schema.method("v3lockpb.Lock/Lock").is_some());
        assert!(schema.method("etcdserverpb.KV/Nope").is_none());
    }

    #[test]
    fn nested_enums_and_groups_of_one_are_known() {
        let schema = Schema::get();
        let compare = schema.message(schema.find("etcdserverpb.Compare").expect("is there"));
        assert_eq!(compare.oneofs, ["target_union"]);
        let result = &compare.fields[0];
        let Kind::Enum(id) = result.kind else { panic!("{result:?}") };
        assert_eq!(schema.enum_number(id, "NOT_EQUAL"), Some(3));
        assert_eq!(schema.enum_name(id, 1), Some("GREATER"));
        assert!(compare.fields.iter().any(|field| field.oneof == Some(0) && field.has_presence()));
    }

    #[test]
    fn fields_stand_in_the_order_of_their_numbers() {
        // JSON is written in the order of the `.proto` file, and messages are encoded in that of their numbers:
        // while both are the same, nothing has to be sorted.
        let schema = Schema::get();
        for method in schema.methods.values() {
            let numbers = schema.message(method.output).fields.iter().map(|field| field.number);
            assert!(numbers.is_sorted(), "{}", schema.message(method.output).name);
        }
    }
}
