//! The macros that turn one description of a frame into its struct, its flat body and its codec.

/// Open enumerations: a `u8` newtype with named values; an unknown value is kept, not refused.
#[macro_export]
macro_rules! open_enums {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $value:ident = $number:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        #[rkyv(attr(doc = "The byte on the wire and on disk."))]
        pub struct $name(pub u8);

        impl $name {
            $($(#[$vdoc])* pub const $value: Self = Self($number);)*

            /// Every value this version has a name for, with its name.
            pub const ALL: &[(Self, &str)] = &[$((Self::$value, stringify!($value)),)*];

            /// Whether this version has a name for the value.
            pub const fn is_known(self) -> bool {
                $(self.0 == $number)||*
            }
        }

        impl $crate::flat::Plain for $name {}

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.0 {
                    $($number => f.write_str(stringify!($value)),)*
                    other => write!(f, concat!(stringify!($name), "({})"), other),
                }
            }
        }
    )*};
}

/// List entries: flat structs that implement [`crate::frame::Element`].
#[macro_export]
macro_rules! elements {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        #[rkyv(attr(doc = "The archived form: the fields in order, little-endian, no padding."))]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }

        impl $name {
            /// The fields of an entry, in the order of their bytes.
            pub const FIELDS: &[$crate::shape::Field] =
                &[$($crate::shape::Field::new::<$type>(stringify!($field), stringify!($type)),)*];
        }

        $crate::element!($name);
    )*};
}

/// Implements [`crate::frame::Element`] for a flat type.
#[macro_export]
macro_rules! element {
    ($name:ty) => {
        impl $crate::frame::Element for $name {
            const BYTES: usize = <Self as $crate::flat::Flat>::BYTES;
            fn put(&self, out: &mut bytes::BytesMut) {
                $crate::flat::put(self, out);
            }
            fn read(bytes: &[u8]) -> Self {
                $crate::flat::read(bytes)
            }
        }
    };
}

/// Frames: for each a struct of its body's fields and its tail's parts, and its [`crate::frame::Body`] codec.
#[macro_export]
macro_rules! frames {
    ($($(#[$doc:meta])* $kind:literal $name:ident
        { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* }
        $([ $($(#[$tdoc:meta])* $part:ident: $ptype:ty,)+ ])?
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
            $($($(#[$tdoc])* pub $part: $ptype,)+)?
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), &self.$field))*
                    $($(.field(stringify!($part), $crate::frame::loggable(stringify!($part), &self.$part)))+)?
                    .finish()
            }
        }

        const _: () = {
            #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
            struct Flat { $($field: $type,)* $($($part: u32,)+)? }

            impl $crate::frame::Body for $name {
                const KIND: u8 = $kind;
                const BODY_BYTES: usize = <Flat as $crate::flat::Flat>::BYTES;
                const FIELDS: &'static [$crate::shape::Field] =
                    &[$($crate::shape::Field::new::<$type>(stringify!($field), stringify!($type)),)*];
                const TAIL: &'static [$crate::shape::Part] =
                    &[$($($crate::shape::Part::new::<$ptype>(stringify!($part), stringify!($ptype)),)+)?];

                fn encode(&self, out: &mut bytes::BytesMut) {
                    let flat = Flat {
                        $($field: self.$field,)*
                        $($($part: $crate::frame::TailPart::length(&self.$part),)+)?
                    };
                    let start = $crate::frame::begin_frame(out, $kind, Self::BODY_BYTES);
                    $crate::flat::put(&flat, out);
                    $($($crate::frame::TailPart::put(&self.$part, out);)+)?
                    $crate::frame::end_frame(out, start);
                }

                fn decode(raw: &$crate::frame::RawFrame) -> Result<Self, $crate::frame::FrameError> {
                    let flat: Flat = $crate::flat::read(raw.body(Self::BODY_BYTES)?);
                    #[allow(unused_mut, reason = "a frame without a tail takes nothing from it")]
                    let mut tail = raw.tail();
                    let frame = Self {
                        $($field: flat.$field,)*
                        $($($part: <$ptype as $crate::frame::TailPart>::take(flat.$part, &mut tail)?,)+)?
                    };
                    if !tail.is_empty() {
                        return Err($crate::frame::FrameError::Tail { have: tail.len(), need: 0 });
                    }
                    Ok(frame)
                }
            }
        };
    )*};
}

/// The closed enum over a set of frames, with its decoder.
#[macro_export]
macro_rules! frame_enum {
    ($(#[$doc:meta])* $enum:ident { $($name:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $enum { $(#[doc = concat!("[`", stringify!($name), "`]")] $name($name),)* }

        impl $enum {
            /// What each kind looks like.
            pub const SHAPES: &[$crate::shape::Shape] = &[$($crate::shape::Shape::new::<$name>(stringify!($name)),)*];

            /// Reads a frame of any known kind; slices its tail, copies no payload.
            ///
            /// # Errors
            /// `UnknownKind`, or what is wrong with its body or tail.
            pub fn decode(raw: &$crate::frame::RawFrame) -> Result<Self, $crate::frame::FrameError> {
                match raw.kind {
                    $(<$name as $crate::frame::Body>::KIND =>
                        <$name as $crate::frame::Body>::decode(raw).map(Self::$name),)*
                    other => Err($crate::frame::FrameError::UnknownKind(other)),
                }
            }

            /// Appends the whole frame.
            pub fn encode(&self, out: &mut bytes::BytesMut) {
                match self { $(Self::$name(frame) => $crate::frame::Body::encode(frame, out),)* }
            }

            /// The name of the frame, for errors and logs.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }
        }

        $(impl From<$name> for $enum {
            fn from(frame: $name) -> Self {
                Self::$name(frame)
            }
        })*
    };
}
