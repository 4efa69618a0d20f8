//! Names of labels, annotations, taints and finalizers: Yado's own and those of Kubernetes that code here reads.

/// The app a thing belongs to.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// The process type within the app: `web`, `worker`.
pub const APP_COMPONENT: &str = "app.kubernetes.io/component";
/// The description a thing was compiled from: all objects of one `yado dev` share it.
pub const APP_PART_OF: &str = "app.kubernetes.io/part-of";
/// Who made a thing; [`MANAGED_BY_YADO`] for what `yado` compiled.
pub const APP_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`APP_MANAGED_BY`].
pub const MANAGED_BY_YADO: &str = "yado";

/// Tells a ReplicaSet's Pods from those of its Deployment's other ReplicaSets.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// A Deployment's revision number, on it and on its ReplicaSets.
pub const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revision numbers of a ReplicaSet that was rolled back to.
pub const DEPLOYMENT_REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Replicas that a ReplicaSet's Deployment asks for in all.
pub const DEPLOYMENT_DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Replicas that a ReplicaSet's Deployment may have at most during an update.
pub const DEPLOYMENT_MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// The Service an EndpointSlice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who writes an EndpointSlice.
pub const ENDPOINTSLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// A node's name, as a label on it.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// A node's operating system.
pub const OS: &str = "kubernetes.io/os";
/// A node's architecture in Go's words (`amd64`, `arm64`).
pub const ARCH: &str = "kubernetes.io/arch";

/// Label of nodes that run the cluster itself; its value is empty.
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Taint of a node whose Ready condition is False.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node whose Ready condition is Unknown.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Finalizer of foreground deletion: the owner goes after its dependants.
pub const FINALIZER_FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of orphaning deletion: the dependants lose their owner reference first.
pub const FINALIZER_ORPHAN: &str = "orphan";

/// Finalizer of a claim: it stays while a Pod uses it.
pub const FINALIZER_CLAIM_IN_USE: &str = "kubernetes.io/pvc-protection";
/// Finalizer of a volume: it stays while a claim is bound to it.
pub const FINALIZER_VOLUME_IN_USE: &str = "kubernetes.io/pv-protection";

/// Annotation of the StorageClass that claims without one get.
pub const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The provisioner of Yado's own class: directories on a node.
pub const LOCAL_PROVISIONER: &str = "yado.dev/local";
/// On a claim: the node on which its volume has to be, as the scheduler says for classes that wait for it.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim or a volume: who provides the storage.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Namespace of the leases by which nodes say that they live.
pub const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";
/// Restart request of `kubectl rollout restart`, on a Pod template.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Further names of a Service that are no DNS labels (`my_db`), separated by commas, on the Service. The name server
/// answers them as it answers the Service's own name.
pub const ALIASES: &str = "yado.dev/aliases";
/// The name of a network of Docker's that projects share, on the Namespace with its members' names, where that cannot be
/// called so.
pub const NETWORK: &str = "yado.dev/network";
/// What must be there before a Pod is placed, on the Pod: JSON, component to [`DEPENDS_ON_STARTED`],
/// [`DEPENDS_ON_HEALTHY`] or [`DEPENDS_ON_COMPLETED`]. Components are those of the Pod's own app and namespace.
pub const DEPENDS_ON: &str = "yado.dev/depends-on";
/// A Pod of the component has been started.
pub const DEPENDS_ON_STARTED: &str = "started";
/// A Pod of the component is ready.
pub const DEPENDS_ON_HEALTHY: &str = "healthy";
/// A Pod of the component has ended well.
pub const DEPENDS_ON_COMPLETED: &str = "completed";
/// Limits of a Pod's processes, on the Pod: JSON, `{"nofile": {"soft": 1024, "hard": 2048}}`.
pub const ULIMITS: &str = "yado.dev/ulimits";
/// The user a container runs as, by name, on the Pod: JSON, container to `USER` or `USER:GROUP` as the image knows
/// them. A Pod's own fields only take numbers.
pub const USERS: &str = "yado.dev/users";
/// Names by which a Pod finds its node, on the Pod: host names, separated by commas. Which address that is, only the
/// node knows.
pub const HOST_GATEWAY: &str = "yado.dev/host-gateway";
/// Containers that a container links and whose ports only their images know, on the Pod: JSON, container to the names
/// of its links and their images. The node adds the links' variables ([`crate::links`]).
pub const LINKS: &str = "yado.dev/links";

/// Condition of a Service of type LoadBalancer: whether the node publishes its ports, and if not, who has them.
pub const PUBLISHED: &str = "yado.dev/Published";

/// The name of the fleet unit that an object was compiled from, such as `web@1.service`, as an annotation.
pub const UNIT: &str = "yado.dev/unit";
/// Units that are reached by one name, such as the instances of a template, have one value of it on their Pods.
pub const UNIT_GROUP: &str = "yado.dev/unit-group";
/// Prefix of labels of Pods that a fleet unit's published ports lead to. The rest of the key is the port outside, such as
/// `8080-public` or `53-udp-local`; the value is the container's port.
pub const PUBLISHES: &str = "port.yado.dev/";
/// Label of ConfigMaps that hold a fleet unit; its value is the state that is asked for: `inactive`, `loaded` or
/// `launched`.
pub const UNIT_STATE: &str = "yado.dev/unit-state";
/// Label of nodes: the machine's ID (`/etc/machine-id`), for units that ask for one.
pub const MACHINE_ID: &str = "yado.dev/machine-id";

/// The image that is the node's own root file system, read-only under a layer of the container's own.
pub const HOST_IMAGE: &str = "host";
/// Label of nodes that allow [`HOST_IMAGE`]; its value is `true`.
pub const HOST_IMAGE_ALLOWED: &str = "yado.dev/host-image";

/// Owners of files in a Pod's volumes of Secrets and ConfigMaps, on the Pod: JSON, volume to paths in it, each with
/// `UID:GID`. A Pod's own fields only say modes, and a group for all of it.
pub const FILE_OWNERS: &str = "yado.dev/file-owners";
/// How often a Pod's containers are run again after they have ended, on the Pod: JSON, container to what
/// [`crate::pod::Restart`] reads. Counts for Pods whose `restartPolicy` is `Always`, as that of a Deployment has to be.
pub const RESTART: &str = "yado.dev/restart";

/// On a PersistentVolumeClaim, `true`: what the image has at the place where the claim is mounted is copied into its
/// volume when that is empty, with owners and modes, as Docker does for named volumes. On a Pod, names of its emptyDir
/// volumes for which the same holds, separated by commas.
pub const COPY_UP: &str = "yado.dev/copy-up";

/// On a Service of type LoadBalancer, ranges that may use it, separated by commas: what `spec.loadBalancerSourceRanges`
/// was before it was a field.
pub const LOAD_BALANCER_SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// On a Pod: names of its volumes that are not filled as [`COPY_UP`] says, separated by commas, as Docker's `nocopy` asks.
pub const NO_COPY_UP: &str = "yado.dev/no-copy-up";
/// On a Pod: JSON, its emptyDir volumes in memory to their options ([`crate::tmpfs`]), such as `mode=0700,noexec`.
pub const TMPFS: &str = "yado.dev/tmpfs";
/// On a Pod: names of its containers whose images' own health checks are switched off, separated by commas. No image's
/// health check runs here; who writes the Pod as a compose file has to say it again.
pub const NO_HEALTH_CHECK: &str = "yado.dev/no-health-check";
/// On a PersistentVolumeClaim: the name that Docker has for the volume, where it does not follow from the claim's.
pub const DOCKER_VOLUME: &str = "yado.dev/docker-volume";
/// On a Pod: JSON, claims that are made by others to the names that Docker has for their volumes, where they differ.
pub const DOCKER_VOLUMES: &str = "yado.dev/docker-volumes";
/// On the Namespace of a compose project: the project's name, where the Namespace's differs from it.
pub const COMPOSE_PROJECT: &str = "yado.dev/compose-project";
