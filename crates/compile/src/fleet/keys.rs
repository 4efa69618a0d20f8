//! The table of unit keys and their support.

/// The support of a unit key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySupport {
    /// It is applied, or the requested behaviour is the only one.
    Supported,
    /// It is known to systemd and has no effect here.
    NoEffect,
    /// It is unknown to systemd, which ignores it.
    Unknown,
}

/// Supported keys of `[Unit]`.
const UNIT: &str = "Description Documentation After Before Requires Requisite Wants BindsTo BindTo PartOf \
    RequiresOverridable RequisiteOverridable DefaultDependencies SourcePath IgnoreOnIsolate Upholds";

/// Keys of `[Unit]` without effect.
const UNIT_WITHOUT: &str = "AllowIsolate AssertACPower AssertArchitecture AssertCapability AssertDirectoryNotEmpty \
    AssertFileIsExecutable AssertFileNotEmpty AssertFirstBoot AssertHost AssertKernelCommandLine AssertNeedsUpdate \
    AssertPathExists AssertPathExistsGlob AssertPathIsDirectory AssertPathIsMountPoint AssertPathIsReadWrite \
    AssertPathIsSymbolicLink AssertSecurity AssertVirtualization CollectMode ConditionACPower ConditionArchitecture \
    ConditionCPUFeature ConditionCPUs ConditionCapability ConditionControlGroupController ConditionDirectoryNotEmpty \
    ConditionEnvironment ConditionFileIsExecutable ConditionFileNotEmpty ConditionFirstBoot ConditionGroup \
    ConditionHost ConditionKernelCommandLine ConditionKernelVersion ConditionMemory ConditionNeedsUpdate ConditionNull \
    ConditionOSRelease ConditionPathExists ConditionPathExistsGlob ConditionPathIsDirectory ConditionPathIsMountPoint \
    ConditionPathIsReadWrite ConditionPathIsSymbolicLink ConditionSecurity ConditionUser ConditionVirtualization \
    Conflicts FailureAction IgnoreOnSnapshot JobRunningTimeoutSec JobTimeoutAction JobTimeoutRebootArgument \
    JobTimeoutSec JoinsNamespaceOf OnFailure OnFailureIsolate OnFailureJobMode OnSuccess PropagateReloadFrom \
    PropagateReloadTo PropagatesReloadTo PropagatesStopTo RebootArgument RefuseManualStart RefuseManualStop \
    ReloadPropagatedFrom RequiresMountsFor StartLimitAction StartLimitBurst StartLimitInterval StartLimitIntervalSec \
    StopPropagatedFrom StopWhenUnneeded SuccessAction WantsMountsFor";

/// Supported keys of `[Service]`. `Standard*` and `Syslog*` select the destination of output, which is always the log that
/// `yado logs` shows; a Pod has its own control group and `/tmp`, and is cleaned up.
const SERVICE: &str = "Type RemainAfterExit ExecStart ExecStartPre ExecStartPost ExecStop ExecStopPost Restart \
    Environment EnvironmentFile User Group WorkingDirectory TimeoutSec TimeoutStartSec TimeoutStopSec KillMode \
    KillSignal SendSIGKILL PIDFile GuessMainPID MemoryLimit MemoryMax CPUQuota StandardOutput StandardError \
    StandardInput SyslogIdentifier SyslogFacility SyslogLevel SyslogLevelPrefix LogLevelMax NotifyAccess PrivateTmp \
    Slice Delegate CPUAccounting MemoryAccounting BlockIOAccounting IOAccounting TasksAccounting TTYPath TTYReset \
    TTYVHangup TTYVTDisallocate IgnoreSIGPIPE ControlGroup PermissionsStartOnly BusName SupplementaryGroups \
    LimitAS LimitCORE LimitCPU LimitDATA LimitFSIZE LimitLOCKS LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNOFILE \
    LimitNPROC LimitRSS LimitRTPRIO LimitRTTIME LimitSIGPENDING LimitSTACK NonBlocking";

/// Keys of `[Service]` without effect.
const SERVICE_WITHOUT: &str = "ExecReload ExecCondition RestartSec RestartPreventExitStatus RestartForceExitStatus \
    RestartSteps RestartMaxDelaySec SuccessExitStatus StartLimitInterval StartLimitBurst StartLimitAction \
    StartLimitIntervalSec FailureAction RebootArgument WatchdogSec WatchdogSignal TimeoutAbortSec TimeoutStartFailureMode \
    TimeoutStopFailureMode RootDirectory RootDirectoryStartOnly RootImage Sockets FinalKillSignal RestartKillSignal \
    SendSIGHUP Nice OOMScoreAdjust OOMPolicy IOSchedulingClass IOSchedulingPriority CPUSchedulingPolicy \
    CPUSchedulingPriority CPUSchedulingResetOnFork CPUAffinity NUMAPolicy NUMAMask UMask TimerSlackNSec Capabilities \
    CapabilityBoundingSet AmbientCapabilities SecureBits ReadWriteDirectories ReadOnlyDirectories InaccessibleDirectories \
    ReadWritePaths ReadOnlyPaths InaccessiblePaths BindPaths BindReadOnlyPaths TemporaryFileSystem PrivateDevices \
    PrivateNetwork PrivateUsers PrivateMounts PrivateIPC ProtectSystem ProtectHome ProtectHostname ProtectClock \
    ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectControlGroups ProtectProc ProcSubset MountFlags \
    MountAPIVFS UtmpIdentifier UtmpMode SELinuxContext AppArmorProfile SmackProcessLabel NoNewPrivileges \
    SystemCallFilter SystemCallErrorNumber SystemCallArchitectures SystemCallLog RestrictAddressFamilies \
    RestrictNamespaces RestrictRealtime RestrictSUIDSGID RestrictFileSystems LockPersonality MemoryDenyWriteExecute \
    Personality RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve StateDirectory StateDirectoryMode \
    CacheDirectory CacheDirectoryMode LogsDirectory LogsDirectoryMode ConfigurationDirectory ConfigurationDirectoryMode \
    DynamicUser PAMName TCPWrapName CPUShares StartupCPUShares CPUWeight StartupCPUWeight CPUQuotaPeriodSec AllowedCPUs \
    MemorySoftLimit MemoryMin MemoryLow MemoryHigh MemorySwapMax TasksMax IOWeight StartupIOWeight IODeviceWeight \
    IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax BlockIOWeight StartupBlockIOWeight \
    BlockIODeviceWeight BlockIOReadBandwidth BlockIOWriteBandwidth DeviceAllow DevicePolicy IPAccounting IPAddressAllow \
    IPAddressDeny PassEnvironment UnsetEnvironment StandardInputText StandardInputData LogRateLimitIntervalSec \
    LogRateLimitBurst LogExtraFields LogNamespace LogFilterPatterns FileDescriptorStoreMax USBFunctionDescriptors \
    USBFunctionStrings KeyringMode CoredumpFilter LoadCredential SetCredential RuntimeMaxSec ReloadSignal \
    ControlGroupModify ControlGroupAttribute ControlGroupPersistent FsckPassNo ExitType NetworkNamespacePath";

/// Supported keys of `[Timer]`. A CronJob is due at the second, so that no accuracy is too high.
const TIMER: &str = "OnCalendar OnActiveSec OnBootSec OnStartupSec OnUnitActiveSec OnUnitInactiveSec Persistent Unit \
    AccuracySec";

/// Keys of `[Timer]` without effect.
const TIMER_WITHOUT: &str = "DeferReactivation FixedRandomDelay OnClockChange OnTimezoneChange RandomizedDelaySec \
    RandomizedOffsetSec RemainAfterElapse WakeSystem";

const INSTALL: &str = "Alias WantedBy RequiredBy UpheldBy Also DefaultInstance";

const X_FLEET: &str = "MachineID MachineOf MachineMetadata Conflicts Global Replaces X-ConditionMachineID \
    X-ConditionMachineBootID X-ConditionMachineOf X-ConditionMachineMetadata X-Conflicts";

/// Sections known to systemd, in addition to that of the unit's own type.
const SECTIONS: [&str; 4] = ["Unit", "Install", "X-Fleet", "Service"];

/// Whether systemd or fleet reads this section in a unit of this type.
pub fn is_section(section: &str, kind: &str) -> bool {
    section.starts_with("X-")
        || SECTIONS.contains(&section) && (section != "Service" || kind == "service")
        || section.eq_ignore_ascii_case(kind)
}

/// The support of `key` in `[section]`.
pub fn support(section: &str, key: &str) -> KeySupport {
    let among = |list: &str| list.split_whitespace().any(|k| k == key);
    match section {
        "Unit" if among(UNIT) => KeySupport::Supported,
        "Unit" if among(UNIT_WITHOUT) => KeySupport::NoEffect,
        "Service" if among(SERVICE) => KeySupport::Supported,
        "Service" if among(SERVICE_WITHOUT) => KeySupport::NoEffect,
        "Timer" if among(TIMER) => KeySupport::Supported,
        "Timer" if among(TIMER_WITHOUT) => KeySupport::NoEffect,
        "Install" if among(INSTALL) => KeySupport::Supported,
        "X-Fleet" if among(X_FLEET) => KeySupport::Supported,
        "X-Fleet" => KeySupport::Unknown,
        // systemd ignores sections and keys with the prefix X-.
        _ if section.starts_with("X-") || key.starts_with("X-") => KeySupport::Supported,
        "Unit" | "Service" | "Timer" | "Install" => KeySupport::Unknown,
        // Units of other types give one warning as a whole.
        _ => KeySupport::Supported,
    }
}

/// The known key that differs only in case or by one letter.
pub fn similar(section: &str, key: &str) -> Option<&'static str> {
    let lists: &[&str] = match section {
        "Unit" => &[UNIT, UNIT_WITHOUT],
        "Service" => &[SERVICE, SERVICE_WITHOUT],
        "Timer" => &[TIMER, TIMER_WITHOUT],
        "Install" => &[INSTALL],
        "X-Fleet" => &[X_FLEET],
        _ => &[],
    };
    let near = |known: &&str| known.eq_ignore_ascii_case(key) || one_apart(known.as_bytes(), key.as_bytes());
    lists.iter().flat_map(|l| l.split_whitespace()).find(near)
}

/// Whether the edit distance of two keys is one.
fn one_apart(a: &[u8], b: &[u8]) -> bool {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Equal => a.get(1..) == b.get(1..),
        std::cmp::Ordering::Less => b.get(1..) == Some(a),
        std::cmp::Ordering::Greater => a.get(1..) == Some(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_meaning() {
        for (section, key, expect, near) in [
            ("Unit", "After", KeySupport::Supported, None),
            ("Unit", "ConditionPathExists", KeySupport::NoEffect, None),
            ("Service", "Nice", KeySupport::NoEffect, None),
            ("Service", "ExecStartpre", KeySupport::Unknown, Some("ExecStartPre")),
            ("Service", "Restrt", KeySupport::Unknown, Some("Restart")),
            ("Service", "X-Own", KeySupport::Supported, None),
            ("X-Fleet", "X-Own", KeySupport::Unknown, None),
            ("X-Fleet", "Conflict", KeySupport::Unknown, Some("Conflicts")),
            ("Timer", "OnCalendar", KeySupport::Supported, None),
            ("Timer", "RandomizedDelaySec", KeySupport::NoEffect, None),
            ("Timer", "OnCalender", KeySupport::Unknown, Some("OnCalendar")),
            ("Install", "WantedBye", KeySupport::Unknown, Some("WantedBy")),
        ] {
            assert_eq!(support(section, key), expect, "{section} {key}");
            if expect == KeySupport::Unknown {
                assert_eq!(similar(section, key), near, "{section} {key}");
            }
        }
        let lists = [UNIT, UNIT_WITHOUT, SERVICE, SERVICE_WITHOUT, TIMER, TIMER_WITHOUT];
        for section in lists.chunks(2) {
            let mut keys: Vec<&str> = section.iter().flat_map(|l| l.split_whitespace()).collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), all, "a key is listed twice");
        }
    }
}
