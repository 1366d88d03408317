//! The closed label values of our own instruments.
//!
//! Invariant: a label value is never made of a text from outside; it is one of these, or a hub's name.

/// A label with closed values.
pub trait Label: Copy + Sized + 'static {
    /// Every value, in the order of their declaration.
    const ALL: &'static [Self];

    /// The value as it stands in the exposition.
    fn as_str(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }
    };
}

label! {
    /// What kind of twin was reconciled.
    TwinKind {
        /// The twin of a device.
        Device = "device",
        /// The twin of a module.
        Module = "module",
    }
}

label! {
    /// Where one managed twin stands; exclusive, so the sum over all is the number of managed twins.
    TwinState {
        /// The live twin has what is declared.
        InSync = "in_sync",
        /// It differs and was not corrected yet.
        Drifted = "drifted",
        /// Not looked at yet, or waiting for its next try.
        Pending = "pending",
        /// A change is held back on purpose.
        Held = "held",
        /// Somebody else wrote between every read and write.
        Conflict = "conflict",
        /// A rival keeps writing other values.
        Contested = "contested",
        /// Its manifest is broken; the last good state holds.
        Frozen = "frozen",
        /// The hub refuses the patch until manifest or twin changes.
        Rejected = "rejected",
        /// The hub does not know the device or module.
        Missing = "missing",
        /// Suspended by manifest, settings or command.
        Suspended = "suspended",
        /// The hub refuses our credentials for this twin.
        Unauthorized = "unauthorized",
        /// The last try failed in another way.
        Failed = "failed",
    }
}

label! {
    /// Which sections of a twin one patch touched.
    Target {
        /// Tags alone.
        Tags = "tags",
        /// Desired properties alone.
        Desired = "desired",
        /// Tags and desired properties.
        Both = "both",
        /// Nothing but our own seal.
        Seal = "seal",
    }
}

label! {
    /// What became of a line of the audit log.
    AuditResult {
        /// It is where it belongs.
        Written = "written",
        /// It could not be written.
        Lost = "lost",
    }
}

label! {
    /// Why something failed: `HubError::category()` and what has no category.
    Reason {
        /// 429.
        Throttled = "throttled",
        /// 401 or 403.
        Unauthorized = "unauthorized",
        /// 404.
        NotFound = "not_found",
        /// 412, or 409 on create.
        Conflict = "conflict",
        /// Any other 4xx.
        Invalid = "invalid",
        /// No answer in time.
        Timeout = "timeout",
        /// No connection.
        Network = "network",
        /// 5xx, or an answer that makes no sense.
        Server = "server",
        /// The daily message quota is used up.
        Quota = "quota",
        /// Anything else.
        Other = "other",
    }
}

impl Reason {
    /// The reason with this text, [`Reason::Other`] when there is none: made for `HubError::category()`.
    #[must_use]
    pub fn of(category: &str) -> Self {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == category).unwrap_or(Self::Other)
    }
}

label! {
    /// What was asked of the hub.
    Operation {
        /// One page of a query.
        Query = "query",
        /// Reading one twin.
        Get = "get",
        /// Patching one twin.
        Patch = "patch",
        /// Registering a device.
        Create = "create",
    }
}

label! {
    /// How a sweep finds out which twins need work.
    SweepKind {
        /// By the pages of a query.
        Query = "query",
        /// By reading every twin.
        Read = "read",
    }
}

label! {
    /// A guard that can hold changes back.
    Guard {
        /// Too many removals.
        Removals = "removals",
        /// Too many creations.
        Creates = "creates",
        /// Too many updates.
        Updates = "updates",
        /// An empty declared state.
        Empty = "empty",
    }
}

label! {
    /// The kind of a manifest.
    ManifestKind {
        /// A device's twin.
        DeviceTwin = "DeviceTwin",
        /// A module's twin.
        ModuleTwin = "ModuleTwin",
        /// The same values for many twins.
        TwinProfile = "TwinProfile",
        /// A query made into metrics.
        TwinQuery = "TwinQuery",
    }
}

label! {
    /// How a manifest stands after the last load.
    ManifestState {
        /// Good and active.
        Valid = "valid",
        /// Broken.
        Invalid = "invalid",
        /// Good and suspended.
        Suspended = "suspended",
    }
}

label! {
    /// A path of our own HTTP port, `/metrics` excepted.
    Handler {
        /// `/`.
        Index = "index",
        /// `/livez`.
        Livez = "livez",
        /// `/readyz`.
        Readyz = "readyz",
        /// Anything beneath `/api/v1`.
        Api = "api",
        /// Any other path.
        Unknown = "unknown",
    }
}

label! {
    /// The level of a log message.
    Level {
        /// Something failed.
        Error = "error",
        /// Something needs an eye.
        Warn = "warn",
        /// Per pass.
        Info = "info",
        /// Per twin.
        Debug = "debug",
        /// Per step.
        Trace = "trace",
    }
}

label! {
    /// A long-running task of the daemon.
    Task {
        /// The reconcile loop of a hub.
        Controller = "controller",
        /// The twin queries of a hub.
        Exporter = "exporter",
        /// Loading and watching manifests.
        Source = "source",
        /// The port for metrics and probes.
        Ops = "ops",
        /// The embedded hub.
        Emulator = "emulator",
        /// The demonstration device.
        Device = "device",
    }
}

/// The HTTP status of an answer, or `none` where there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(Option<u16>);

impl Code {
    /// No answer arrived.
    pub const NONE: Self = Self(None);
    /// What a hub may answer by `iot-hub.md` section 3, and the statuses of proxies; these exist with 0 from the start.
    pub const KNOWN: [Self; 17] = [
        Self::NONE,
        Self(Some(200)),
        Self(Some(201)),
        Self(Some(204)),
        Self(Some(400)),
        Self(Some(401)),
        Self(Some(403)),
        Self(Some(404)),
        Self(Some(405)),
        Self(Some(409)),
        Self(Some(412)),
        Self(Some(413)),
        Self(Some(429)),
        Self(Some(500)),
        Self(Some(502)),
        Self(Some(503)),
        Self(Some(504)),
    ];

    /// The code of a status; anything but three digits counts as no answer, so that the label stays closed.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        if status >= 100 && status <= 999 { Self(Some(status)) } else { Self::NONE }
    }

    /// The code as it stands in the exposition.
    #[must_use]
    pub fn text(self) -> String {
        self.0.map_or_else(|| "none".to_owned(), |status| status.to_string())
    }
}
