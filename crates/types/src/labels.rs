//! Names of labels, annotations, taints, finalizers and conditions: Yado's own, and those of Kubernetes that it uses.

/// Label with the name of the app that an object belongs to.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Label with the process type within the app, such as `web` or `worker`.
pub const APP_COMPONENT: &str = "app.kubernetes.io/component";
/// Label with the description that an object was compiled from: all objects of one `yado dev` share it.
pub const APP_PART_OF: &str = "app.kubernetes.io/part-of";
/// Label with the tool that manages an object; [`MANAGED_BY_YADO`] for compiled objects.
pub const APP_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`APP_MANAGED_BY`] on objects that `yado` compiled.
pub const MANAGED_BY_YADO: &str = "yado";

/// Label with a hash of the Pod template, which distinguishes a ReplicaSet's Pods from those of the Deployment's others.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotation of Deployments and their ReplicaSets with the revision number.
pub const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation of a ReplicaSet that was rolled back to, with its earlier revision numbers, separated by commas.
pub const DEPLOYMENT_REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation of a ReplicaSet with the `replicas` of its Deployment when it was last scaled.
pub const DEPLOYMENT_DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a ReplicaSet with the maximum number of Pods during a rollout of its Deployment.
pub const DEPLOYMENT_MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Label of a DaemonSet's or StatefulSet's Pod that tells from which template it was made: the hash of the template, or the
/// name of its ControllerRevision.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";

/// Label of an EndpointSlice with the name of its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of an EndpointSlice with the name of the controller that manages it.
pub const ENDPOINTSLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Label of a node with its name.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Label of a node with its operating system in Go's naming (`linux`).
pub const OS: &str = "kubernetes.io/os";
/// Label of a node with its architecture in Go's naming (`amd64`, `arm64`).
pub const ARCH: &str = "kubernetes.io/arch";

/// Label of nodes that run the control plane; its value is empty.
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Taint of a node whose Ready condition is False.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node whose Ready condition is Unknown.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Finalizer of foreground deletion: the object is deleted after the dependents that block it.
pub const FINALIZER_FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of orphaning deletion: the object is deleted after its dependents have lost their owner references to it.
pub const FINALIZER_ORPHAN: &str = "orphan";

/// Finalizer that keeps a PersistentVolumeClaim while a Pod uses it.
pub const FINALIZER_CLAIM_IN_USE: &str = "kubernetes.io/pvc-protection";
/// Finalizer that keeps a PersistentVolume while a claim is bound to it.
pub const FINALIZER_VOLUME_IN_USE: &str = "kubernetes.io/pv-protection";

/// Annotation, with the value `true`, of the StorageClass for claims that name none.
pub const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// Name of Yado's own volume provisioner, whose volumes are directories on a node.
pub const LOCAL_PROVISIONER: &str = "yado.dev/local";
/// Annotation of a claim with the node that the scheduler selected for its volume (binding mode `WaitForFirstConsumer`).
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Annotation of a volume with the provisioner that created it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Namespace of the Leases that nodes renew as heartbeats.
pub const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";
/// Annotation of a Pod template with the time of the last `kubectl rollout restart`, which thereby changes the template.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Annotation of a Service with further names that are not valid DNS labels (`my_db`), separated by commas. The name
/// server resolves them like the Service's own name.
pub const ALIASES: &str = "yado.dev/aliases";
/// Annotation of a Namespace that stands for a Docker network shared by projects, with the network's name where the
/// Namespace cannot have it.
pub const NETWORK: &str = "yado.dev/network";
/// Annotation of a Pod with components that must reach a condition before it is scheduled: a JSON object of component
/// names and [`DEPENDS_ON_STARTED`], [`DEPENDS_ON_HEALTHY`] or [`DEPENDS_ON_COMPLETED`]. The components are those of the
/// Pod's own app and namespace.
pub const DEPENDS_ON: &str = "yado.dev/depends-on";
/// Value in [`DEPENDS_ON`]: a Pod of the component is in the phase Running, Succeeded or Failed.
pub const DEPENDS_ON_STARTED: &str = "started";
/// Value in [`DEPENDS_ON`]: a Pod of the component is ready.
pub const DEPENDS_ON_HEALTHY: &str = "healthy";
/// Value in [`DEPENDS_ON`]: a Pod of the component is in the phase Succeeded.
pub const DEPENDS_ON_COMPLETED: &str = "completed";
/// Annotation of a Pod with resource limits of its processes, as JSON: `{"nofile": {"soft": 1024, "hard": 2048}}`.
pub const ULIMITS: &str = "yado.dev/ulimits";
/// Annotation of a Pod with the users of its containers by name, as a JSON object of container names and `USER` or
/// `USER:GROUP`, which the image defines. A Pod's own fields take only numbers.
pub const USERS: &str = "yado.dev/users";
/// Annotation of a Pod with host names, separated by commas, that resolve to its node. Only the node knows its address.
pub const HOST_GATEWAY: &str = "yado.dev/host-gateway";
/// Annotation of a Pod with links to containers whose ports only their images define: a JSON object of container names
/// and the names of their links with the images. The node adds the links' variables ([`crate::links`]).
pub const LINKS: &str = "yado.dev/links";

/// Condition of a Service of type LoadBalancer: whether the node publishes its ports, and if not, who has them.
pub const PUBLISHED: &str = "yado.dev/Published";

/// Annotation with the name of the fleet unit that an object was compiled from, such as `web@1.service`.
pub const UNIT: &str = "yado.dev/unit";
/// Label of Pods of units that are reached by one name, such as the instances of a template: they have the same value.
pub const UNIT_GROUP: &str = "yado.dev/unit-group";
/// Prefix of labels of Pods that serve a fleet unit's published ports. The rest of the key is the published port, such as
/// `8080-public` or `53-udp-local`; the value is the container's port.
pub const PUBLISHES: &str = "port.yado.dev/";
/// Label of ConfigMaps that hold a fleet unit; its value is the desired state: `inactive`, `loaded` or `launched`.
pub const UNIT_STATE: &str = "yado.dev/unit-state";
/// Label of a node with its machine ID (`/etc/machine-id`), for units that require a machine.
pub const MACHINE_ID: &str = "yado.dev/machine-id";

/// Name of the image that stands for the node's own root file system, read-only below the container's writable layer.
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
