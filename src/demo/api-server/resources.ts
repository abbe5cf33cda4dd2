/**
 * The resources the stand-in serves: a table of built-in ones, and custom ones
 * added while it runs.
 */

import { isObject, messageOf, textAt, type JsonObject, type Message } from "./schema.ts";

/** One served resource of one version. */
export interface Resource {
  readonly group: string;
  readonly version: string;
  /** Plural, as in paths: "pods". */
  readonly resource: string;
  readonly singular: string;
  readonly kind: string;
  readonly listKind: string;
  readonly isNamespaced: boolean;
  readonly shortNames: readonly string[];
  readonly hasStatus: boolean;
  /** Subresources besides status. */
  readonly subresources: readonly string[];
  /** Custom: printed with sorted keys, never as protobuf, items carry kind and apiVersion. */
  readonly isCustom: boolean;
  readonly fieldSelectors: readonly string[];
  /** The field table; undefined for custom resources and kinds that are in none. */
  readonly message: Message | undefined;
  /** Reviews are answered and not stored. */
  readonly isReview: boolean;
}

// group/version | plural | Kind | n(amespaced) s(tatus) r(eview) | short names | subresources | field selectors besides metadata.*
const TABLE = `
v1|pods|Pod|ns|po|log,exec,attach,portforward,eviction,ephemeralcontainers,binding|spec.nodeName,spec.restartPolicy,spec.schedulerName,spec.serviceAccountName,spec.hostNetwork,status.phase,status.podIP,status.podIPs,status.nominatedNodeName
v1|nodes|Node|s|no|proxy|spec.unschedulable
v1|services|Service|ns|svc|proxy|spec.clusterIP,spec.type
v1|configmaps|ConfigMap|n|cm||
v1|secrets|Secret|n|||type
v1|events|Event|n|ev||involvedObject.kind,involvedObject.namespace,involvedObject.name,involvedObject.uid,involvedObject.apiVersion,involvedObject.resourceVersion,involvedObject.fieldPath,reason,reportingComponent,source,type
v1|namespaces|Namespace|s|ns|finalize|status.phase
v1|serviceaccounts|ServiceAccount|n|sa|token|
v1|endpoints|Endpoints|n|ep||
v1|persistentvolumes|PersistentVolume|s|pv||
v1|persistentvolumeclaims|PersistentVolumeClaim|ns|pvc||
discovery.k8s.io/v1|endpointslices|EndpointSlice|n|||
coordination.k8s.io/v1|leases|Lease|n|||
apps/v1|deployments|Deployment|ns|deploy|scale|
storage.k8s.io/v1|csinodes|CSINode||||
storage.k8s.io/v1|csidrivers|CSIDriver||||
storage.k8s.io/v1|volumeattachments|VolumeAttachment|s|||
resource.k8s.io/v1|resourceclaims|ResourceClaim|ns|||
resource.k8s.io/v1|resourceslices|ResourceSlice||||spec.driver,spec.nodeName
node.k8s.io/v1|runtimeclasses|RuntimeClass||||
networking.k8s.io/v1|servicecidrs|ServiceCIDR|s|||
certificates.k8s.io/v1|certificatesigningrequests|CertificateSigningRequest|s|csr|approval|spec.signerName
certificates.k8s.io/v1|clustertrustbundles|ClusterTrustBundle||||spec.signerName
certificates.k8s.io/v1|podcertificaterequests|PodCertificateRequest|ns|||spec.signerName,spec.nodeName
apiextensions.k8s.io/v1|customresourcedefinitions|CustomResourceDefinition|s|crd,crds||
authentication.k8s.io/v1|tokenreviews|TokenReview|r|||
authentication.k8s.io/v1|selfsubjectreviews|SelfSubjectReview|r|||
authorization.k8s.io/v1|subjectaccessreviews|SubjectAccessReview|r|||
authorization.k8s.io/v1|selfsubjectaccessreviews|SelfSubjectAccessReview|r|||
`;

const split = (text: string | undefined) => (text ? text.split(",") : []);

function builtIn(line: string): Resource {
  const [groupVersion = "", resource = "", kind = "", flags = "", shortNames, subresources, fieldSelectors] =
    line.split("|");
  const [version = "", group = ""] = groupVersion.split("/").reverse();
  return {
    group,
    version,
    resource,
    singular: kind.toLowerCase(),
    kind,
    listKind: `${kind}List`,
    isNamespaced: flags.includes("n"),
    shortNames: split(shortNames),
    hasStatus: flags.includes("s"),
    subresources: split(subresources),
    isCustom: false,
    fieldSelectors: split(fieldSelectors),
    message: messageOf(group, kind),
    isReview: flags.includes("r"),
  };
}

/** How the store names a resource, whatever its version: "pods", "deployments.apps". */
export const storageName = ({ group, resource }: { group: string; resource: string }) =>
  group === "" ? resource : `${resource}.${group}`;

/** apiVersion of a resource's objects. */
export const apiVersionOf = ({ group, version }: { group: string; version: string }) =>
  group === "" ? version : `${group}/${version}`;

/** Everything served, found by path parts. */
export class Resources {
  readonly #served: Resource[] = TABLE.trim().split("\n").map(builtIn);

  all(): readonly Resource[] {
    return this.#served;
  }

  find(group: string, version: string, resource: string): Resource | undefined {
    return this.#served.find((one) => one.group === group && one.version === version && one.resource === resource);
  }

  /** By kind, in any group unless `apiVersion` is given. */
  ofKind(kind: string, apiVersion?: string): Resource | undefined {
    return this.#served.find(
      (one) => one.kind === kind && (apiVersion === undefined || apiVersionOf(one) === apiVersion),
    );
  }

  hasGroup(group: string): boolean {
    return this.#served.some((one) => one.group === group);
  }

  /** Group and version pairs in the order they were added. */
  groupVersions(): { group: string; version: string }[] {
    const seen = new Map(this.#served.map(({ group, version }) => [`${group}/${version}`, { group, version }]));
    return [...seen.values()];
  }

  /** Serves the versions a CustomResourceDefinition names, in place of what it named before. */
  define(definition: JsonObject): void {
    this.undefine(definition);
    const spec = isObject(definition["spec"]) ? definition["spec"] : {};
    const names = isObject(spec["names"]) ? spec["names"] : {};
    for (const version of Array.isArray(spec["versions"]) ? spec["versions"] : []) {
      if (!isObject(version) || version["served"] === false) continue;
      const kind = textAt(names, "kind");
      this.#served.push({
        group: textAt(spec, "group"),
        version: textAt(version, "name"),
        resource: textAt(names, "plural"),
        singular: textAt(names, "singular") || kind.toLowerCase(),
        kind,
        listKind: textAt(names, "listKind") || `${kind}List`,
        isNamespaced: textAt(spec, "scope") === "Namespaced",
        shortNames: Array.isArray(names["shortNames"]) ? names["shortNames"].map(String) : [],
        hasStatus: isObject(version["subresources"]) && "status" in version["subresources"],
        subresources: [],
        isCustom: true,
        fieldSelectors: (Array.isArray(version["selectableFields"]) ? version["selectableFields"] : []).map((field) =>
          textAt(field, "jsonPath").replace(/^\./, ""),
        ),
        message: undefined,
        isReview: false,
      });
    }
  }

  /** Stops serving what a CustomResourceDefinition named. */
  undefine(definition: JsonObject): void {
    const group = textAt(definition, "spec.group");
    const plural = textAt(definition, "spec.names.plural");
    for (let at = this.#served.length - 1; at >= 0; at--) {
      const one = this.#served[at]!;
      if (one.isCustom && one.group === group && one.resource === plural) this.#served.splice(at, 1);
    }
  }
}
