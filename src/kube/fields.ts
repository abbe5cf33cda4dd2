/**
 * The fields of Kubernetes' types, as its Go sources 0.37.2 declare them.
 * Written by demo/api-server/fields.generate.ts; not by hand.
 *
 * A line is one message: its name, then its fields in the order Go's JSON has
 * them, each jsonName:number:type:flags.
 *
 *   type   s string, i integer, b bool, y bytes, t Time, u MicroTime, q Quantity,
 *          x IntOrString, r raw JSON, d Duration, e ExtraValue, else a message;
 *          * is a list of, % a map from string to
 *   flags  o left out of JSON when empty, p a Go pointer (left out of protobuf
 *          when unset), ^ inlined in JSON, ~KEY a list merged by KEY in a
 *          strategic merge (~ alone: a set of plain values)
 */
export const FIELDS = `
Pod metadata:1:meta.ObjectMeta:o spec:2:PodSpec:o status:3:PodStatus:o
Node metadata:1:meta.ObjectMeta:o spec:2:NodeSpec:o status:3:NodeStatus:o
Service metadata:1:meta.ObjectMeta:o spec:2:ServiceSpec:o status:3:ServiceStatus:o
ConfigMap metadata:1:meta.ObjectMeta:o immutable:4:b:op data:2:%s:o binaryData:3:%y:o
Secret metadata:1:meta.ObjectMeta:o immutable:5:b:op data:2:%y:o stringData:4:%s:o type:3:s:o
Event metadata:1:meta.ObjectMeta involvedObject:2:ObjectReference reason:3:s:o message:4:s:o source:5:EventSource:o firstTimestamp:6:t lastTimestamp:7:t count:8:i:o type:9:s:o eventTime:10:u series:11:EventSeries:op action:12:s:o related:13:ObjectReference:op reportingComponent:14:s reportingInstance:15:s
Namespace metadata:1:meta.ObjectMeta:o spec:2:NamespaceSpec:o status:3:NamespaceStatus:o
ServiceAccount metadata:1:meta.ObjectMeta:o secrets:2:*ObjectReference:o~name imagePullSecrets:3:*LocalObjectReference:o automountServiceAccountToken:4:b:op
Endpoints metadata:1:meta.ObjectMeta:o subsets:2:*EndpointSubset:o
apps.Deployment metadata:1:meta.ObjectMeta:o spec:2:apps.DeploymentSpec:o status:3:apps.DeploymentStatus:o
discovery.EndpointSlice metadata:1:meta.ObjectMeta:o addressType:4:s endpoints:2:*discovery.Endpoint ports:3:*discovery.EndpointPort
coordination.Lease metadata:1:meta.ObjectMeta:o spec:2:coordination.LeaseSpec:o
PersistentVolume metadata:1:meta.ObjectMeta:o spec:2:PersistentVolumeSpec:o status:3:PersistentVolumeStatus:o
PersistentVolumeClaim metadata:1:meta.ObjectMeta:o spec:2:PersistentVolumeClaimSpec:o status:3:PersistentVolumeClaimStatus:o
storage.VolumeAttachment metadata:1:meta.ObjectMeta:o spec:2:storage.VolumeAttachmentSpec status:3:storage.VolumeAttachmentStatus:o
resource.ResourceClaim metadata:1:meta.ObjectMeta:o spec:2:resource.ResourceClaimSpec status:3:resource.ResourceClaimStatus:o
resource.ResourceSlice metadata:1:meta.ObjectMeta:o spec:2:resource.ResourceSliceSpec
certificates.ClusterTrustBundle metadata:1:meta.ObjectMeta:o spec:2:certificates.ClusterTrustBundleSpec
certificates.PodCertificateRequest metadata:1:meta.ObjectMeta:o spec:2:certificates.PodCertificateRequestSpec status:3:certificates.PodCertificateRequestStatus:o
storage.CSINode metadata:1:meta.ObjectMeta:o spec:2:storage.CSINodeSpec status:3:storage.CSINodeStatus:o
storage.CSIDriver metadata:1:meta.ObjectMeta:o spec:2:storage.CSIDriverSpec
node.RuntimeClass metadata:1:meta.ObjectMeta:o handler:2:s overhead:3:node.Overhead:op scheduling:4:node.Scheduling:op
networking.ServiceCIDR metadata:1:meta.ObjectMeta:o spec:2:networking.ServiceCIDRSpec:o status:3:networking.ServiceCIDRStatus:o
events.Event metadata:1:meta.ObjectMeta eventTime:2:u series:3:events.EventSeries:op reportingController:4:s:o reportingInstance:5:s:o action:6:s:o reason:7:s:o regarding:8:ObjectReference:o related:9:ObjectReference:op note:10:s:o type:11:s:o deprecatedSource:12:EventSource:o deprecatedFirstTimestamp:13:t deprecatedLastTimestamp:14:t deprecatedCount:15:i:o
certificates.CertificateSigningRequest metadata:1:meta.ObjectMeta:o spec:2:certificates.CertificateSigningRequestSpec status:3:certificates.CertificateSigningRequestStatus:o
authentication.TokenRequest metadata:1:meta.ObjectMeta:o spec:2:authentication.TokenRequestSpec status:3:authentication.TokenRequestStatus:o
authentication.TokenReview metadata:1:meta.ObjectMeta:o spec:2:authentication.TokenReviewSpec status:3:authentication.TokenReviewStatus:o
authentication.SelfSubjectReview metadata:1:meta.ObjectMeta:o status:2:authentication.SelfSubjectReviewStatus:o
authorization.SelfSubjectAccessReview metadata:1:meta.ObjectMeta:o spec:2:authorization.SelfSubjectAccessReviewSpec status:3:authorization.SubjectAccessReviewStatus:o
authorization.SubjectAccessReview metadata:1:meta.ObjectMeta:o spec:2:authorization.SubjectAccessReviewSpec status:3:authorization.SubjectAccessReviewStatus:o
meta.Status metadata:1:meta.ListMeta:o status:2:s:o message:3:s:o reason:4:s:o details:5:meta.StatusDetails:op code:6:i:o
meta.ListMeta selfLink:1:s:o resourceVersion:2:s:o continue:3:s:o remainingItemCount:4:i:op shardInfo:5:meta.ShardInfo:op
meta.DeleteOptions gracePeriodSeconds:1:i:op preconditions:2:meta.Preconditions:op orphanDependents:3:b:op propagationPolicy:4:s:op dryRun:5:*s:o ignoreStoreReadErrorWithClusterBreakingPotential:6:b:op
meta.PartialObjectMetadata metadata:1:meta.ObjectMeta:o
meta.ObjectMeta name:1:s:o generateName:2:s:o namespace:3:s:o selfLink:4:s:o uid:5:s:o resourceVersion:6:s:o generation:7:i:o creationTimestamp:8:t:o deletionTimestamp:9:t:op deletionGracePeriodSeconds:10:i:op labels:11:%s:o annotations:12:%s:o ownerReferences:13:*meta.OwnerReference:o~uid finalizers:14:*s:o~ managedFields:17:*meta.ManagedFieldsEntry:o
PodSpec volumes:1:*Volume:o~name initContainers:20:*Container:o~name containers:2:*Container:~name ephemeralContainers:34:*EphemeralContainer:o~name restartPolicy:3:s:o terminationGracePeriodSeconds:4:i:op activeDeadlineSeconds:5:i:op dnsPolicy:6:s:o nodeSelector:7:%s:o serviceAccountName:8:s:o serviceAccount:9:s:o automountServiceAccountToken:21:b:op nodeName:10:s:o hostNetwork:11:b:o hostPID:12:b:o hostIPC:13:b:o shareProcessNamespace:27:b:op securityContext:14:PodSecurityContext:op imagePullSecrets:15:*LocalObjectReference:o~name hostname:16:s:o subdomain:17:s:o affinity:18:Affinity:op schedulerName:19:s:o tolerations:22:*Toleration:o hostAliases:23:*HostAlias:o~ip priorityClassName:24:s:o priority:25:i:op dnsConfig:26:PodDNSConfig:op readinessGates:28:*PodReadinessGate:o runtimeClassName:29:s:op enableServiceLinks:30:b:op preemptionPolicy:31:s:op overhead:32:%q:o topologySpreadConstraints:33:*TopologySpreadConstraint:o~topologyKey setHostnameAsFQDN:35:b:op os:36:PodOS:op hostUsers:37:b:op schedulingGates:38:*PodSchedulingGate:o~name resourceClaims:39:*PodResourceClaim:o~name resources:40:ResourceRequirements:op hostnameOverride:41:s:op schedulingGroup:43:PodSchedulingGroup:op evictionResponders:44:*EvictionResponder:o~name
PodStatus observedGeneration:17:i:o phase:1:s:o conditions:2:*PodCondition:o~type message:3:s:o reason:4:s:o nominatedNodeName:11:s:o hostIP:5:s:o hostIPs:16:*HostIP:o~ip podIP:6:s:o podIPs:12:*PodIP:o~ip startTime:7:t:op initContainerStatuses:10:*ContainerStatus:o containerStatuses:8:*ContainerStatus:o qosClass:9:s:o ephemeralContainerStatuses:13:*ContainerStatus:o resize:14:s:o resourceClaimStatuses:15:*PodResourceClaimStatus:o~name extendedResourceClaimStatus:18:PodExtendedResourceClaimStatus:op allocatedResources:19:%q:o resources:20:ResourceRequirements:op nodeAllocatableResourceClaimStatuses:21:*NodeAllocatableResourceClaimStatus:o~resourceClaimName volumeHealth:22:*PodVolumeHealth:o
NodeSpec podCIDR:1:s:o podCIDRs:7:*s:o~ providerID:3:s:o unschedulable:4:b:o taints:5:*Taint:o configSource:6:NodeConfigSource:op externalID:2:s:o podPreemptionPolicy:8:NodePodPreemptionPolicy:op
NodeStatus capacity:1:%q:o allocatable:2:%q:o phase:3:s:o conditions:4:*NodeCondition:o~type addresses:5:*NodeAddress:o~type daemonEndpoints:6:NodeDaemonEndpoints:o nodeInfo:7:NodeSystemInfo:o images:8:*ContainerImage:o volumesInUse:9:*s:o volumesAttached:10:*AttachedVolume:o config:11:NodeConfigStatus:op runtimeHandlers:12:*NodeRuntimeHandler:o features:13:NodeFeatures:op declaredFeatures:14:*s:o
ServiceSpec ports:1:*ServicePort:o~port selector:2:%s:o clusterIP:3:s:o clusterIPs:18:*s:o type:4:s:o externalIPs:5:*s:o sessionAffinity:7:s:o loadBalancerIP:8:s:o loadBalancerSourceRanges:9:*s:o externalName:10:s:o externalTrafficPolicy:11:s:o healthCheckNodePort:12:i:o publishNotReadyAddresses:13:b:o sessionAffinityConfig:14:SessionAffinityConfig:op ipFamilies:19:*s:o ipFamilyPolicy:17:s:op allocateLoadBalancerNodePorts:20:b:op loadBalancerClass:21:s:op internalTrafficPolicy:22:s:op trafficDistribution:23:s:op
ServiceStatus loadBalancer:1:LoadBalancerStatus:o conditions:2:*meta.Condition:o~type
ObjectReference kind:1:s:o namespace:2:s:o name:3:s:o uid:4:s:o apiVersion:5:s:o resourceVersion:6:s:o fieldPath:7:s:o
EventSource component:1:s:o host:2:s:o
EventSeries count:1:i:o lastObservedTime:2:u
NamespaceSpec finalizers:1:*s:o
NamespaceStatus phase:1:s:o conditions:2:*NamespaceCondition:o~type
LocalObjectReference name:1:s:o
EndpointSubset addresses:1:*EndpointAddress:o notReadyAddresses:2:*EndpointAddress:o ports:3:*EndpointPort:o
apps.DeploymentSpec replicas:1:i:op selector:2:meta.LabelSelector:p template:3:PodTemplateSpec strategy:4:apps.DeploymentStrategy:o minReadySeconds:5:i:o revisionHistoryLimit:6:i:op paused:7:b:o progressDeadlineSeconds:9:i:op
apps.DeploymentStatus observedGeneration:1:i:o replicas:2:i:o updatedReplicas:3:i:o readyReplicas:7:i:o availableReplicas:4:i:o unavailableReplicas:5:i:o terminatingReplicas:9:i:op conditions:6:*apps.DeploymentCondition:o~type collisionCount:8:i:op
discovery.Endpoint addresses:1:*s conditions:2:discovery.EndpointConditions:o hostname:3:s:op targetRef:4:ObjectReference:op deprecatedTopology:5:%s:o nodeName:6:s:op zone:7:s:op hints:8:discovery.EndpointHints:op
discovery.EndpointPort name:1:s:op protocol:2:s:op port:3:i:op appProtocol:4:s:op
coordination.LeaseSpec holderIdentity:1:s:op leaseDurationSeconds:2:i:op acquireTime:3:u:op renewTime:4:u:op leaseTransitions:5:i:op strategy:6:s:op preferredHolder:7:s:op
PersistentVolumeSpec capacity:1:%q:o :2:PersistentVolumeSource:^ accessModes:3:*s:o claimRef:4:ObjectReference:op persistentVolumeReclaimPolicy:5:s:o storageClassName:6:s:o mountOptions:7:*s:o volumeMode:8:s:op nodeAffinity:9:VolumeNodeAffinity:op volumeAttributesClassName:10:s:op
PersistentVolumeStatus phase:1:s:o message:2:s:o reason:3:s:o lastPhaseTransitionTime:4:t:op
PersistentVolumeClaimSpec accessModes:1:*s:o selector:4:meta.LabelSelector:op resources:2:VolumeResourceRequirements:o volumeName:3:s:o storageClassName:5:s:op volumeMode:6:s:op dataSource:7:TypedLocalObjectReference:op dataSourceRef:8:TypedObjectReference:op volumeAttributesClassName:9:s:op
PersistentVolumeClaimStatus phase:1:s:o accessModes:2:*s:o capacity:3:%q:o conditions:4:*PersistentVolumeClaimCondition:o~type allocatedResources:5:%q:o allocatedResourceStatuses:7:%s:o currentVolumeAttributesClassName:8:s:op modifyVolumeStatus:9:ModifyVolumeStatus:op healthStatus:10:VolumeHealthStatus:op
storage.VolumeAttachmentSpec attacher:1:s source:2:storage.VolumeAttachmentSource nodeName:3:s
storage.VolumeAttachmentStatus attached:1:b attachmentMetadata:2:%s:o attachError:3:storage.VolumeError:op detachError:4:storage.VolumeError:op
resource.ResourceClaimSpec devices:1:resource.DeviceClaim
resource.ResourceClaimStatus allocation:1:resource.AllocationResult:op reservedFor:2:*resource.ResourceClaimConsumerReference:o~uid devices:4:*resource.AllocatedDeviceStatus:o
resource.ResourceSliceSpec driver:1:s pool:2:resource.ResourcePool nodeName:3:s:op nodeSelector:4:NodeSelector:op allNodes:5:b:op devices:6:*resource.Device:o perDeviceNodeSelection:7:b:op sharedCounters:8:*resource.CounterSet:o partitionTypeAttribute:9:s:op skipNodeOperations:10:*s:o
certificates.ClusterTrustBundleSpec signerName:1:s:o trustBundle:2:s
certificates.PodCertificateRequestSpec signerName:1:s podName:2:s podUID:3:s serviceAccountName:4:s serviceAccountUID:5:s nodeName:6:s nodeUID:7:s maxExpirationSeconds:8:i:op stubPKCS10Request:12:y unverifiedUserAnnotations:11:%s:o
certificates.PodCertificateRequestStatus conditions:1:*meta.Condition:o~type certificateChain:2:s:o notBefore:4:t:op beginRefreshAt:5:t:op notAfter:6:t:op
storage.CSINodeSpec drivers:1:*storage.CSINodeDriver:~name
storage.CSINodeStatus storageHealth:1:*storage.StorageHealth:o~name
storage.CSIDriverSpec attachRequired:1:b:op podInfoOnMount:2:b:op volumeLifecycleModes:3:*s:o storageCapacity:4:b:op fsGroupPolicy:5:s:op tokenRequests:6:*storage.TokenRequest:o requiresRepublish:7:b:op seLinuxMount:8:b:op nodeAllocatableUpdatePeriodSeconds:9:i:op serviceAccountTokenInSecrets:10:b:op preventPodSchedulingIfMissing:11:b:op
node.Overhead podFixed:1:%q:o
node.Scheduling nodeSelector:1:%s:o tolerations:2:*Toleration:o
networking.ServiceCIDRSpec cidrs:1:*s:o
networking.ServiceCIDRStatus conditions:1:*meta.Condition:o~type
events.EventSeries count:1:i lastObservedTime:2:u
certificates.CertificateSigningRequestSpec request:1:y signerName:7:s expirationSeconds:8:i:op usages:5:*s:o username:2:s:o uid:3:s:o groups:4:*s:o extra:6:%e:o
certificates.CertificateSigningRequestStatus conditions:1:*certificates.CertificateSigningRequestCondition:o certificate:2:y:o
authentication.TokenRequestSpec audiences:1:*s expirationSeconds:4:i:p boundObjectRef:3:authentication.BoundObjectReference:p attestations:5:%*s:o
authentication.TokenRequestStatus token:1:s expirationTimestamp:2:t
authentication.TokenReviewSpec token:1:s:o audiences:2:*s:o
authentication.TokenReviewStatus authenticated:1:b:o user:2:authentication.UserInfo:o audiences:4:*s:o error:3:s:o
authentication.SelfSubjectReviewStatus userInfo:1:authentication.UserInfo:o
authorization.SelfSubjectAccessReviewSpec resourceAttributes:1:authorization.ResourceAttributes:op nonResourceAttributes:2:authorization.NonResourceAttributes:op
authorization.SubjectAccessReviewStatus allowed:1:b denied:4:b:o reason:2:s:o evaluationError:3:s:o
authorization.SubjectAccessReviewSpec resourceAttributes:1:authorization.ResourceAttributes:op nonResourceAttributes:2:authorization.NonResourceAttributes:op user:3:s:o groups:4:*s:o extra:5:%e:o uid:6:s:o
meta.StatusDetails name:1:s:o group:2:s:o kind:3:s:o uid:6:s:o causes:4:*meta.StatusCause:o retryAfterSeconds:5:i:o
meta.ShardInfo selector:1:s
meta.Preconditions uid:1:s:op resourceVersion:2:s:op
meta.OwnerReference apiVersion:5:s kind:1:s name:3:s uid:4:s controller:6:b:op blockOwnerDeletion:7:b:op
meta.ManagedFieldsEntry manager:1:s:o operation:2:s:o apiVersion:3:s:o time:4:t:op fieldsType:6:s:o fieldsV1:7:r:op subresource:8:s:o
Volume name:1:s :2:VolumeSource:^
Container name:1:s image:2:s:o command:3:*s:o args:4:*s:o workingDir:5:s:o ports:6:*ContainerPort:o~containerPort envFrom:19:*EnvFromSource:o env:7:*EnvVar:o~name resources:8:ResourceRequirements:o resizePolicy:23:*ContainerResizePolicy:o restartPolicy:24:s:op restartPolicyRules:25:*ContainerRestartRule:o volumeMounts:9:*VolumeMount:o~mountPath volumeDevices:21:*VolumeDevice:o~devicePath livenessProbe:10:Probe:op readinessProbe:11:Probe:op startupProbe:22:Probe:op lifecycle:12:Lifecycle:op terminationMessagePath:13:s:o terminationMessagePolicy:20:s:o imagePullPolicy:14:s:o securityContext:15:SecurityContext:op stdin:16:b:o stdinOnce:17:b:o tty:18:b:o
EphemeralContainer :1:EphemeralContainerCommon:^ targetContainerName:2:s:o
PodSecurityContext seLinuxOptions:1:SELinuxOptions:op windowsOptions:8:WindowsSecurityContextOptions:op runAsUser:2:i:op runAsGroup:6:i:op runAsNonRoot:3:b:op supplementalGroups:4:*i:o supplementalGroupsPolicy:12:s:op fsGroup:5:i:op sysctls:7:*Sysctl:o fsGroupChangePolicy:9:s:op seccompProfile:10:SeccompProfile:op appArmorProfile:11:AppArmorProfile:op seLinuxChangePolicy:13:s:op
Affinity nodeAffinity:1:NodeAffinity:op podAffinity:2:PodAffinity:op podAntiAffinity:3:PodAntiAffinity:op
Toleration key:1:s:o operator:2:s:o value:3:s:o effect:4:s:o tolerationSeconds:5:i:op
HostAlias ip:1:s hostnames:2:*s:o
PodDNSConfig nameservers:1:*s:o searches:2:*s:o options:3:*PodDNSConfigOption:o
PodReadinessGate conditionType:1:s
TopologySpreadConstraint maxSkew:1:i topologyKey:2:s whenUnsatisfiable:3:s labelSelector:4:meta.LabelSelector:op minDomains:5:i:op nodeAffinityPolicy:6:s:op nodeTaintsPolicy:7:s:op matchLabelKeys:8:*s:o
PodOS name:1:s
PodSchedulingGate name:1:s
PodResourceClaim name:1:s resourceClaimName:3:s:op resourceClaimTemplateName:4:s:op
ResourceRequirements limits:1:%q:o requests:2:%q:o claims:3:*ResourceClaim:o
PodSchedulingGroup podGroupName:1:s:op
EvictionResponder name:1:s priority:2:i:p
PodCondition type:1:s observedGeneration:7:i:o status:2:s lastProbeTime:3:t lastTransitionTime:4:t reason:5:s:o message:6:s:o
HostIP ip:1:s
PodIP ip:1:s
ContainerStatus name:1:s state:2:ContainerState:o lastState:3:ContainerState:o ready:4:b restartCount:5:i image:6:s imageID:7:s containerID:8:s:o started:9:b:op allocatedResources:10:%q:o resources:11:ResourceRequirements:op volumeMounts:12:*VolumeMountStatus:o~mountPath user:13:ContainerUser:op allocatedResourcesStatus:14:*ResourceStatus:o~name stopSignal:15:s:op
PodResourceClaimStatus name:1:s resourceClaimName:2:s:op
PodExtendedResourceClaimStatus requestMappings:1:*ContainerExtendedResourceRequest resourceClaimName:2:s
NodeAllocatableResourceClaimStatus resourceClaimName:1:s containers:2:*s:o mapping:4:*NodeAllocatableMappedResources:o~name overhead:5:*NodeAllocatableOverheadResources:o~name
PodVolumeHealth name:1:s healthConditions:2:*VolumeHealthCondition:o~status lastTransitionTime:3:t
Taint key:1:s value:2:s:o effect:3:s timeAdded:4:t:op
NodeConfigSource configMap:2:ConfigMapNodeConfigSource:op
NodePodPreemptionPolicy disableResizePreemption:1:*s:o
NodeCondition type:1:s status:2:s lastHeartbeatTime:3:t lastTransitionTime:4:t reason:5:s:o message:6:s:o
NodeAddress type:1:s address:2:s
NodeDaemonEndpoints kubeletEndpoint:1:DaemonEndpoint:o
NodeSystemInfo machineID:1:s systemUUID:2:s bootID:3:s kernelVersion:4:s osImage:5:s containerRuntimeVersion:6:s kubeletVersion:7:s kubeProxyVersion:8:s operatingSystem:9:s architecture:10:s swap:11:NodeSwapStatus:op runningInUserNamespace:12:b:op
ContainerImage names:1:*s sizeBytes:2:i:o
AttachedVolume name:1:s devicePath:2:s
NodeConfigStatus assigned:1:NodeConfigSource:op active:2:NodeConfigSource:op lastKnownGood:3:NodeConfigSource:op error:4:s:o
NodeRuntimeHandler name:1:s features:2:NodeRuntimeHandlerFeatures:op
NodeFeatures supplementalGroupsPolicy:1:b:op
ServicePort name:1:s:o protocol:2:s:o appProtocol:6:s:op port:3:i targetPort:4:x:o nodePort:5:i:o
SessionAffinityConfig clientIP:1:ClientIPConfig:op
LoadBalancerStatus ingress:1:*LoadBalancerIngress:o
meta.Condition type:1:s status:2:s observedGeneration:3:i:o lastTransitionTime:4:t reason:5:s message:6:s
NamespaceCondition type:1:s status:2:s lastTransitionTime:4:t reason:5:s:o message:6:s:o
EndpointAddress ip:1:s hostname:3:s:o nodeName:4:s:op targetRef:2:ObjectReference:op
EndpointPort name:1:s:o port:2:i protocol:3:s:o appProtocol:4:s:op
meta.LabelSelector matchLabels:1:%s:o matchExpressions:2:*meta.LabelSelectorRequirement:o
PodTemplateSpec metadata:1:meta.ObjectMeta:o spec:2:PodSpec:o
apps.DeploymentStrategy type:1:s:o rollingUpdate:2:apps.RollingUpdateDeployment:op
apps.DeploymentCondition type:1:s status:2:s lastUpdateTime:6:t lastTransitionTime:7:t reason:4:s:o message:5:s:o
discovery.EndpointConditions ready:1:b:op serving:2:b:op terminating:3:b:op
discovery.EndpointHints forZones:1:*discovery.ForZone:o forNodes:2:*discovery.ForNode:o
PersistentVolumeSource gcePersistentDisk:1:GCEPersistentDiskVolumeSource:op awsElasticBlockStore:2:AWSElasticBlockStoreVolumeSource:op hostPath:3:HostPathVolumeSource:op glusterfs:4:GlusterfsPersistentVolumeSource:op nfs:5:NFSVolumeSource:op rbd:6:RBDPersistentVolumeSource:op iscsi:7:ISCSIPersistentVolumeSource:op cinder:8:CinderPersistentVolumeSource:op cephfs:9:CephFSPersistentVolumeSource:op fc:10:FCVolumeSource:op flocker:11:FlockerVolumeSource:op flexVolume:12:FlexPersistentVolumeSource:op azureFile:13:AzureFilePersistentVolumeSource:op vsphereVolume:14:VsphereVirtualDiskVolumeSource:op quobyte:15:QuobyteVolumeSource:op azureDisk:16:AzureDiskVolumeSource:op photonPersistentDisk:17:PhotonPersistentDiskVolumeSource:op portworxVolume:18:PortworxVolumeSource:op scaleIO:19:ScaleIOPersistentVolumeSource:op local:20:LocalVolumeSource:op storageos:21:StorageOSPersistentVolumeSource:op csi:22:CSIPersistentVolumeSource:op
VolumeNodeAffinity required:1:NodeSelector:op
VolumeResourceRequirements limits:1:%q:o requests:2:%q:o
TypedLocalObjectReference apiGroup:1:s:p kind:2:s name:3:s
TypedObjectReference apiGroup:1:s:p kind:2:s name:3:s namespace:4:s:op
PersistentVolumeClaimCondition type:1:s status:2:s lastProbeTime:3:t lastTransitionTime:4:t reason:5:s:o message:6:s:o
ModifyVolumeStatus targetVolumeAttributesClassName:1:s:o status:2:s
VolumeHealthStatus healthConditions:1:*VolumeHealthCondition:o~status lastTransitionTime:2:t
storage.VolumeAttachmentSource persistentVolumeName:1:s:op inlineVolumeSpec:2:PersistentVolumeSpec:op
storage.VolumeError time:1:t message:2:s:o errorCode:3:i:op
resource.DeviceClaim requests:1:*resource.DeviceRequest constraints:2:*resource.DeviceConstraint:o config:3:*resource.DeviceClaimConfiguration:o
resource.AllocationResult devices:1:resource.DeviceAllocationResult:o nodeSelector:3:NodeSelector:op allocationTimestamp:5:t:op
resource.ResourceClaimConsumerReference apiGroup:1:s:o resource:3:s name:4:s uid:5:s
resource.AllocatedDeviceStatus driver:1:s pool:2:s device:3:s shareID:7:s:op conditions:4:*meta.Condition data:5:r:op networkData:6:resource.NetworkDeviceData:op
resource.ResourcePool name:1:s generation:2:i resourceSliceCount:3:i
NodeSelector nodeSelectorTerms:1:*NodeSelectorTerm
resource.Device name:1:s attributes:2:%resource.DeviceAttribute:o capacity:3:%resource.DeviceCapacity:o consumesCounters:4:*resource.DeviceCounterConsumption:o nodeName:5:s:op nodeSelector:6:NodeSelector:op allNodes:7:b:op taints:8:*resource.DeviceTaint:o bindsToNode:9:b:op bindingConditions:10:*s:o bindingFailureConditions:11:*s:o allowMultipleAllocations:12:b:op nodeAllocatableResources:14:%resource.NodeAllocatableResource:o
resource.CounterSet name:1:s counters:2:%resource.Counter:o
storage.CSINodeDriver name:1:s nodeID:2:s topologyKeys:3:*s allocatable:4:storage.VolumeNodeResources:op
storage.StorageHealth name:1:s healthConditions:2:*storage.StorageHealthCondition:o
storage.TokenRequest audience:1:s expirationSeconds:2:i:op
certificates.CertificateSigningRequestCondition type:1:s status:6:s reason:2:s:o message:3:s:o lastUpdateTime:4:t lastTransitionTime:5:t
authentication.BoundObjectReference kind:1:s:o apiVersion:2:s:o name:3:s:o uid:4:s:o
authentication.UserInfo username:1:s:o uid:2:s:o groups:3:*s:o extra:4:%e:o
authorization.ResourceAttributes namespace:1:s:o verb:2:s:o group:3:s:o version:4:s:o resource:5:s:o subresource:6:s:o name:7:s:o fieldSelector:8:authorization.FieldSelectorAttributes:op labelSelector:9:authorization.LabelSelectorAttributes:op
authorization.NonResourceAttributes path:1:s:o verb:2:s:o
meta.StatusCause reason:1:s:o message:2:s:o field:3:s:o
VolumeSource hostPath:1:HostPathVolumeSource:op emptyDir:2:EmptyDirVolumeSource:op gcePersistentDisk:3:GCEPersistentDiskVolumeSource:op awsElasticBlockStore:4:AWSElasticBlockStoreVolumeSource:op gitRepo:5:GitRepoVolumeSource:op secret:6:SecretVolumeSource:op nfs:7:NFSVolumeSource:op iscsi:8:ISCSIVolumeSource:op glusterfs:9:GlusterfsVolumeSource:op persistentVolumeClaim:10:PersistentVolumeClaimVolumeSource:op rbd:11:RBDVolumeSource:op flexVolume:12:FlexVolumeSource:op cinder:13:CinderVolumeSource:op cephfs:14:CephFSVolumeSource:op flocker:15:FlockerVolumeSource:op downwardAPI:16:DownwardAPIVolumeSource:op fc:17:FCVolumeSource:op azureFile:18:AzureFileVolumeSource:op configMap:19:ConfigMapVolumeSource:op vsphereVolume:20:VsphereVirtualDiskVolumeSource:op quobyte:21:QuobyteVolumeSource:op azureDisk:22:AzureDiskVolumeSource:op photonPersistentDisk:23:PhotonPersistentDiskVolumeSource:op projected:26:ProjectedVolumeSource:op portworxVolume:24:PortworxVolumeSource:op scaleIO:25:ScaleIOVolumeSource:op storageos:27:StorageOSVolumeSource:op csi:28:CSIVolumeSource:op ephemeral:29:EphemeralVolumeSource:op image:30:ImageVolumeSource:op
ContainerPort name:1:s:o hostPort:2:i:o containerPort:3:i protocol:4:s:o hostIP:5:s:o
EnvFromSource prefix:1:s:o configMapRef:2:ConfigMapEnvSource:op secretRef:3:SecretEnvSource:op
EnvVar name:1:s value:2:s:o valueFrom:3:EnvVarSource:op
ContainerResizePolicy resourceName:1:s restartPolicy:2:s
ContainerRestartRule action:1:s:o exitCodes:2:ContainerRestartRuleOnExitCodes:op
VolumeMount name:1:s readOnly:2:b:o recursiveReadOnly:7:s:op mountPath:3:s subPath:4:s:o mountPropagation:5:s:op subPathExpr:6:s:o bindMountOptions:8:*s:o
VolumeDevice name:1:s devicePath:2:s
Probe :1:ProbeHandler:^ initialDelaySeconds:2:i:o timeoutSeconds:3:i:o periodSeconds:4:i:o successThreshold:5:i:o failureThreshold:6:i:o terminationGracePeriodSeconds:7:i:op
Lifecycle postStart:1:LifecycleHandler:op preStop:2:LifecycleHandler:op stopSignal:3:s:op
SecurityContext capabilities:1:Capabilities:op privileged:2:b:op seLinuxOptions:3:SELinuxOptions:op windowsOptions:10:WindowsSecurityContextOptions:op runAsUser:4:i:op runAsGroup:8:i:op runAsNonRoot:5:b:op readOnlyRootFilesystem:6:b:op allowPrivilegeEscalation:7:b:op procMount:9:s:op seccompProfile:11:SeccompProfile:op appArmorProfile:12:AppArmorProfile:op
EphemeralContainerCommon name:1:s image:2:s:o command:3:*s:o args:4:*s:o workingDir:5:s:o ports:6:*ContainerPort:o~containerPort envFrom:19:*EnvFromSource:o env:7:*EnvVar:o~name resources:8:ResourceRequirements:o resizePolicy:23:*ContainerResizePolicy:o restartPolicy:24:s:op restartPolicyRules:25:*ContainerRestartRule:o volumeMounts:9:*VolumeMount:o~mountPath volumeDevices:21:*VolumeDevice:o~devicePath livenessProbe:10:Probe:op readinessProbe:11:Probe:op startupProbe:22:Probe:op lifecycle:12:Lifecycle:op terminationMessagePath:13:s:o terminationMessagePolicy:20:s:o imagePullPolicy:14:s:o securityContext:15:SecurityContext:op stdin:16:b:o stdinOnce:17:b:o tty:18:b:o
SELinuxOptions user:1:s:o role:2:s:o type:3:s:o level:4:s:o
WindowsSecurityContextOptions gmsaCredentialSpecName:1:s:op gmsaCredentialSpec:2:s:op runAsUserName:3:s:op hostProcess:4:b:op
Sysctl name:1:s value:2:s
SeccompProfile type:1:s localhostProfile:2:s:op
AppArmorProfile type:1:s localhostProfile:2:s:op
NodeAffinity requiredDuringSchedulingIgnoredDuringExecution:1:NodeSelector:op preferredDuringSchedulingIgnoredDuringExecution:2:*PreferredSchedulingTerm:o
PodAffinity requiredDuringSchedulingIgnoredDuringExecution:1:*PodAffinityTerm:o preferredDuringSchedulingIgnoredDuringExecution:2:*WeightedPodAffinityTerm:o
PodAntiAffinity requiredDuringSchedulingIgnoredDuringExecution:1:*PodAffinityTerm:o preferredDuringSchedulingIgnoredDuringExecution:2:*WeightedPodAffinityTerm:o
PodDNSConfigOption name:1:s:o value:2:s:op
ResourceClaim name:1:s request:2:s:o
ContainerState waiting:1:ContainerStateWaiting:op running:2:ContainerStateRunning:op terminated:3:ContainerStateTerminated:op
VolumeMountStatus name:1:s mountPath:2:s readOnly:3:b:o recursiveReadOnly:4:s:op volumeStatus:5:VolumeStatus:op
ContainerUser linux:1:LinuxContainerUser:op
ResourceStatus name:1:s resources:2:*ResourceHealth:o
ContainerExtendedResourceRequest containerName:1:s resourceName:2:s requestName:3:s
NodeAllocatableMappedResources name:1:s quantity:2:q:p
NodeAllocatableOverheadResources name:1:s perPod:2:q:op perContainer:3:q:op
VolumeHealthCondition status:1:s reason:2:s message:3:s:o
ConfigMapNodeConfigSource namespace:1:s name:2:s uid:3:s:o resourceVersion:4:s:o kubeletConfigKey:5:s
DaemonEndpoint Port:1:i
NodeSwapStatus capacity:1:i:op
NodeRuntimeHandlerFeatures recursiveReadOnlyMounts:1:b:op userNamespaces:2:b:op
ClientIPConfig timeoutSeconds:1:i:op
LoadBalancerIngress ip:1:s:o hostname:2:s:o ipMode:3:s:op ports:4:*PortStatus:o
meta.LabelSelectorRequirement key:1:s operator:2:s values:3:*s:o
apps.RollingUpdateDeployment maxUnavailable:1:x:op maxSurge:2:x:op
discovery.ForZone name:1:s
discovery.ForNode name:1:s
GCEPersistentDiskVolumeSource pdName:1:s fsType:2:s:o partition:3:i:o readOnly:4:b:o
AWSElasticBlockStoreVolumeSource volumeID:1:s fsType:2:s:o partition:3:i:o readOnly:4:b:o
HostPathVolumeSource path:1:s type:2:s:op
GlusterfsPersistentVolumeSource endpoints:1:s path:2:s readOnly:3:b:o endpointsNamespace:4:s:op
NFSVolumeSource server:1:s path:2:s readOnly:3:b:o
RBDPersistentVolumeSource monitors:1:*s image:2:s fsType:3:s:o pool:4:s:o user:5:s:o keyring:6:s:o secretRef:7:SecretReference:op readOnly:8:b:o
ISCSIPersistentVolumeSource targetPortal:1:s iqn:2:s lun:3:i iscsiInterface:4:s:o fsType:5:s:o readOnly:6:b:o portals:7:*s:o chapAuthDiscovery:8:b:o chapAuthSession:11:b:o secretRef:10:SecretReference:op initiatorName:12:s:op
CinderPersistentVolumeSource volumeID:1:s fsType:2:s:o readOnly:3:b:o secretRef:4:SecretReference:op
CephFSPersistentVolumeSource monitors:1:*s path:2:s:o user:3:s:o secretFile:4:s:o secretRef:5:SecretReference:op readOnly:6:b:o
FCVolumeSource targetWWNs:1:*s:o lun:2:i:op fsType:3:s:o readOnly:4:b:o wwids:5:*s:o
FlockerVolumeSource datasetName:1:s:o datasetUUID:2:s:o
FlexPersistentVolumeSource driver:1:s fsType:2:s:o secretRef:3:SecretReference:op readOnly:4:b:o options:5:%s:o
AzureFilePersistentVolumeSource secretName:1:s shareName:2:s readOnly:3:b:o secretNamespace:4:s:p
VsphereVirtualDiskVolumeSource volumePath:1:s fsType:2:s:o storagePolicyName:3:s:o storagePolicyID:4:s:o
QuobyteVolumeSource registry:1:s volume:2:s readOnly:3:b:o user:4:s:o group:5:s:o tenant:6:s:o
AzureDiskVolumeSource diskName:1:s diskURI:2:s cachingMode:3:s:op fsType:4:s:op readOnly:5:b:op kind:6:s:op
PhotonPersistentDiskVolumeSource pdID:1:s fsType:2:s:o
PortworxVolumeSource volumeID:1:s fsType:2:s:o readOnly:3:b:o
ScaleIOPersistentVolumeSource gateway:1:s system:2:s secretRef:3:SecretReference:p sslEnabled:4:b:o protectionDomain:5:s:o storagePool:6:s:o storageMode:7:s:o volumeName:8:s:o fsType:9:s:o readOnly:10:b:o
LocalVolumeSource path:1:s fsType:2:s:op
StorageOSPersistentVolumeSource volumeName:1:s:o volumeNamespace:2:s:o fsType:3:s:o readOnly:4:b:o secretRef:5:ObjectReference:op
CSIPersistentVolumeSource driver:1:s volumeHandle:2:s readOnly:3:b:o fsType:4:s:o volumeAttributes:5:%s:o controllerPublishSecretRef:6:SecretReference:op nodeStageSecretRef:7:SecretReference:op nodePublishSecretRef:8:SecretReference:op controllerExpandSecretRef:9:SecretReference:op nodeExpandSecretRef:10:SecretReference:op
resource.DeviceRequest name:1:s exactly:2:resource.ExactDeviceRequest:op firstAvailable:3:*resource.DeviceSubRequest:o
resource.DeviceConstraint requests:1:*s:o matchAttribute:2:s:op distinctAttribute:3:s:op
resource.DeviceClaimConfiguration requests:1:*s:o :2:resource.DeviceConfiguration:^
resource.DeviceAllocationResult results:1:*resource.DeviceRequestAllocationResult:o config:2:*resource.DeviceAllocationConfiguration:o
resource.NetworkDeviceData interfaceName:1:s:o ips:2:*s:o hardwareAddress:3:s:o
NodeSelectorTerm matchExpressions:1:*NodeSelectorRequirement:o matchFields:2:*NodeSelectorRequirement:o
resource.DeviceAttribute int:2:i:op bool:3:b:op string:4:s:op version:5:s:op ints:6:*i:o bools:7:*b:o strings:8:*s:o versions:9:*s:o
resource.DeviceCapacity value:1:q requestPolicy:2:resource.CapacityRequestPolicy:op
resource.DeviceCounterConsumption counterSet:1:s counters:2:%resource.Counter:o compatibilityGroups:3:*s:o
resource.DeviceTaint key:1:s value:2:s:o effect:3:s timeAdded:4:t:op
resource.NodeAllocatableResource mapping:3:resource.NodeAllocatableMapping:op overhead:4:resource.NodeAllocatableOverhead:op
resource.Counter value:1:q
storage.VolumeNodeResources count:1:i:op
storage.StorageHealthCondition status:1:s reason:2:s message:3:s:o accessMode:4:s:op volumeMode:5:s:op lastTransitionTime:6:t
authorization.FieldSelectorAttributes rawSelector:1:s:o requirements:2:*meta.FieldSelectorRequirement:o
authorization.LabelSelectorAttributes rawSelector:1:s:o requirements:2:*meta.LabelSelectorRequirement:o
EmptyDirVolumeSource medium:1:s:o sizeLimit:2:q:op mode:3:i:op
GitRepoVolumeSource repository:1:s revision:2:s:o directory:3:s:o
SecretVolumeSource secretName:1:s:o items:2:*KeyToPath:o defaultMode:3:i:op optional:4:b:op defaultUser:5:i:op
ISCSIVolumeSource targetPortal:1:s iqn:2:s lun:3:i iscsiInterface:4:s:o fsType:5:s:o readOnly:6:b:o portals:7:*s:o chapAuthDiscovery:8:b:o chapAuthSession:11:b:o secretRef:10:LocalObjectReference:op initiatorName:12:s:op
GlusterfsVolumeSource endpoints:1:s path:2:s readOnly:3:b:o
PersistentVolumeClaimVolumeSource claimName:1:s readOnly:2:b:o
RBDVolumeSource monitors:1:*s image:2:s fsType:3:s:o pool:4:s:o user:5:s:o keyring:6:s:o secretRef:7:LocalObjectReference:op readOnly:8:b:o
FlexVolumeSource driver:1:s fsType:2:s:o secretRef:3:LocalObjectReference:op readOnly:4:b:o options:5:%s:o
CinderVolumeSource volumeID:1:s fsType:2:s:o readOnly:3:b:o secretRef:4:LocalObjectReference:op
CephFSVolumeSource monitors:1:*s path:2:s:o user:3:s:o secretFile:4:s:o secretRef:5:LocalObjectReference:op readOnly:6:b:o
DownwardAPIVolumeSource items:1:*DownwardAPIVolumeFile:o defaultMode:2:i:op defaultUser:3:i:op
AzureFileVolumeSource secretName:1:s shareName:2:s readOnly:3:b:o
ConfigMapVolumeSource :1:LocalObjectReference:^ items:2:*KeyToPath:o defaultMode:3:i:op optional:4:b:op defaultUser:5:i:op
ProjectedVolumeSource sources:1:*VolumeProjection defaultMode:2:i:op defaultUser:3:i:op
ScaleIOVolumeSource gateway:1:s system:2:s secretRef:3:LocalObjectReference:p sslEnabled:4:b:o protectionDomain:5:s:o storagePool:6:s:o storageMode:7:s:o volumeName:8:s:o fsType:9:s:o readOnly:10:b:o
StorageOSVolumeSource volumeName:1:s:o volumeNamespace:2:s:o fsType:3:s:o readOnly:4:b:o secretRef:5:LocalObjectReference:op
CSIVolumeSource driver:1:s readOnly:2:b:op fsType:3:s:op volumeAttributes:4:%s:o nodePublishSecretRef:5:LocalObjectReference:op
EphemeralVolumeSource volumeClaimTemplate:1:PersistentVolumeClaimTemplate:op
ImageVolumeSource reference:1:s:o pullPolicy:2:s:o
ConfigMapEnvSource :1:LocalObjectReference:^ optional:2:b:op
SecretEnvSource :1:LocalObjectReference:^ optional:2:b:op
EnvVarSource fieldRef:1:ObjectFieldSelector:op resourceFieldRef:2:ResourceFieldSelector:op configMapKeyRef:3:ConfigMapKeySelector:op secretKeyRef:4:SecretKeySelector:op fileKeyRef:5:FileKeySelector:op
ContainerRestartRuleOnExitCodes operator:1:s:o values:2:*i:o
ProbeHandler exec:1:ExecAction:op httpGet:2:HTTPGetAction:op tcpSocket:3:TCPSocketAction:op grpc:4:GRPCAction:op
LifecycleHandler exec:1:ExecAction:op httpGet:2:HTTPGetAction:op tcpSocket:3:TCPSocketAction:op sleep:4:SleepAction:op
Capabilities add:1:*s:o drop:2:*s:o
PreferredSchedulingTerm weight:1:i preference:2:NodeSelectorTerm
PodAffinityTerm labelSelector:1:meta.LabelSelector:op namespaces:2:*s:o topologyKey:3:s namespaceSelector:4:meta.LabelSelector:op matchLabelKeys:5:*s:o mismatchLabelKeys:6:*s:o
WeightedPodAffinityTerm weight:1:i podAffinityTerm:2:PodAffinityTerm
ContainerStateWaiting reason:1:s:o message:2:s:o
ContainerStateRunning startedAt:1:t
ContainerStateTerminated exitCode:1:i signal:2:i:o reason:3:s:o message:4:s:o startedAt:5:t finishedAt:6:t containerID:7:s:o
VolumeStatus image:1:ImageVolumeStatus:op
LinuxContainerUser uid:1:i gid:2:i supplementalGroups:3:*i:o
ResourceHealth resourceID:1:s health:2:s:o message:6:s:op
PortStatus port:1:i protocol:2:s error:3:s:op
SecretReference name:1:s:o namespace:2:s:o
resource.ExactDeviceRequest deviceClassName:1:s selectors:2:*resource.DeviceSelector:o allocationMode:3:s:o count:4:i:o adminAccess:5:b:op tolerations:6:*resource.DeviceToleration:o capacity:7:resource.CapacityRequirements:op derivedAttributes:8:*resource.DeviceDerivedAttribute:o
resource.DeviceSubRequest name:1:s deviceClassName:2:s selectors:3:*resource.DeviceSelector:o allocationMode:4:s:o count:5:i:o tolerations:6:*resource.DeviceToleration:o capacity:7:resource.CapacityRequirements:op derivedAttributes:8:*resource.DeviceDerivedAttribute:o
resource.DeviceConfiguration opaque:1:resource.OpaqueDeviceConfiguration:op
resource.DeviceRequestAllocationResult request:1:s driver:2:s pool:3:s device:4:s adminAccess:5:b:op tolerations:6:*resource.DeviceToleration:o bindingConditions:7:*s:o bindingFailureConditions:8:*s:o shareID:9:s:op consumedCapacity:10:%q:o skipNodeOperations:11:*s:o
resource.DeviceAllocationConfiguration source:1:s requests:2:*s:o :3:resource.DeviceConfiguration:^
NodeSelectorRequirement key:1:s operator:2:s values:3:*s:o
resource.CapacityRequestPolicy default:1:q:p validValues:3:*q:o validRange:4:resource.CapacityRequestPolicyRange:op
resource.NodeAllocatableMapping capacityKey:1:s:op capacityMultiplier:2:q:op deviceMultiplier:3:q:op
resource.NodeAllocatableOverhead perPod:1:q:op perContainer:2:q:op
meta.FieldSelectorRequirement key:1:s operator:2:s values:3:*s:o
KeyToPath key:1:s path:2:s mode:3:i:op user:4:i:op
DownwardAPIVolumeFile path:1:s fieldRef:2:ObjectFieldSelector:op resourceFieldRef:3:ResourceFieldSelector:op mode:4:i:op user:5:i:op
VolumeProjection secret:1:SecretProjection:op downwardAPI:2:DownwardAPIProjection:op configMap:3:ConfigMapProjection:op serviceAccountToken:4:ServiceAccountTokenProjection:op clusterTrustBundle:5:ClusterTrustBundleProjection:op podCertificate:6:PodCertificateProjection:op
PersistentVolumeClaimTemplate metadata:1:meta.ObjectMeta:o spec:2:PersistentVolumeClaimSpec
ObjectFieldSelector apiVersion:1:s:o fieldPath:2:s
ResourceFieldSelector containerName:1:s:o resource:2:s divisor:3:q:o
ConfigMapKeySelector :1:LocalObjectReference:^ key:2:s optional:3:b:op
SecretKeySelector :1:LocalObjectReference:^ key:2:s optional:3:b:op
FileKeySelector volumeName:1:s path:2:s key:3:s optional:4:b:op
ExecAction command:1:*s:o
HTTPGetAction path:1:s:o port:2:x host:3:s:o scheme:4:s:o httpHeaders:5:*HTTPHeader:o protocol:6:s:op
TCPSocketAction port:1:x host:2:s:o
GRPCAction port:1:i service:2:s:p mode:3:s:op
SleepAction seconds:1:i
ImageVolumeStatus imageRef:1:s:o
resource.DeviceSelector cel:1:resource.CELDeviceSelector:op
resource.DeviceToleration key:1:s:o operator:2:s:o value:3:s:o effect:4:s:o tolerationSeconds:5:i:op
resource.CapacityRequirements requests:1:%q:o
resource.DeviceDerivedAttribute name:1:s expression:2:s
resource.OpaqueDeviceConfiguration driver:1:s parameters:2:r
resource.CapacityRequestPolicyRange min:1:q:op max:2:q:op step:3:q:op
SecretProjection :1:LocalObjectReference:^ items:2:*KeyToPath:o optional:4:b:op
DownwardAPIProjection items:1:*DownwardAPIVolumeFile:o
ConfigMapProjection :1:LocalObjectReference:^ items:2:*KeyToPath:o optional:4:b:op
ServiceAccountTokenProjection audience:1:s:o expirationSeconds:2:i:op path:3:s user:4:i:op
ClusterTrustBundleProjection name:1:s:op signerName:2:s:op labelSelector:3:meta.LabelSelector:op optional:5:b:op path:4:s user:6:i:op
PodCertificateProjection signerName:1:s:o keyType:2:s:o maxExpirationSeconds:3:i:op credentialBundlePath:4:s:o keyPath:5:s:o certificateChainPath:6:s:o userAnnotations:7:%s:o user:8:i:op
HTTPHeader name:1:s value:2:s
resource.CELDeviceSelector expression:1:s
`;
