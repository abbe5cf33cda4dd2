// Command informers runs one client-go shared informer and tells, as JSON lines
// on stdout, all that it sees: the lab's stand-in for every program that is
// built on client-go (kubelet, kube-proxy, CoreDNS, CNI agents).
//
// Lines: {"event":"added|updated|deleted","key","uid","rv"}, "synced", "error"
// (what the watch error handler got), "dump" (the store, sorted by key).
// Commands, one a line on stdin: dump, quit. The end of stdin is quit.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

type options struct {
	kubeconfig, mode, content, resource, namespace string
	fieldSelector, labelSelector, watchList        string
}

type item struct {
	Key string `json:"key"`
	UID string `json:"uid"`
	RV  string `json:"rv"`
}

type line struct {
	Event string `json:"event"`
	item
	Items   []item `json:"items,omitempty"`
	Initial bool   `json:"initial,omitempty"`
	Message string `json:"message,omitempty"`
	AtMs    int64  `json:"atMs"`
}

var stdout sync.Mutex

func say(l line) {
	l.AtMs = time.Now().UnixMilli()
	text, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	stdout.Lock()
	defer stdout.Unlock()
	fmt.Println(string(text))
}

func main() {
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "file to connect with")
	flag.StringVar(&o.mode, "mode", "typed", "typed, dynamic or metadata")
	flag.StringVar(&o.content, "content", "protobuf", "json or protobuf; dynamic clients speak json alone")
	flag.StringVar(&o.watchList, "watchlist", "true", "begin with a streaming list (client-go's default since 1.35)")
	flag.StringVar(&o.resource, "resource", "pods", "resource[.version.group]")
	flag.StringVar(&o.namespace, "namespace", "", "empty: all namespaces")
	flag.StringVar(&o.fieldSelector, "field-selector", "", "")
	flag.StringVar(&o.labelSelector, "label-selector", "", "")
	klog.InitFlags(nil) // -v=4 tells on stderr why a reflector lists again
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) error {
	// Feature gates of client-go are read from the environment at first use.
	os.Setenv("KUBE_FEATURE_WatchListClient", o.watchList)
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	informer, err := newInformer(config, o)
	if err != nil {
		return err
	}
	if err := observe(informer); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { informer.RunWithContext(ctx); close(done) }()
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			say(line{Event: "synced", Items: dump(informer.GetStore())})
		}
	}()
	obey(informer)
	cancel()
	<-done
	return nil
}

func newInformer(config *rest.Config, o options) (cache.SharedIndexInformer, error) {
	config.AcceptContentTypes, config.ContentType = "application/json", "application/json"
	if o.content == "protobuf" {
		config.ContentType = "application/vnd.kubernetes.protobuf"
		config.AcceptContentTypes = config.ContentType + ",application/json"
	}
	resource := groupVersionResource(o.resource)
	tweak := func(l *metav1.ListOptions) { l.FieldSelector, l.LabelSelector = o.fieldSelector, o.labelSelector }
	switch o.mode {
	case "typed":
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
			informers.WithNamespace(o.namespace), informers.WithTweakListOptions(tweak))
		generic, err := factory.ForResource(resource)
		if err != nil {
			return nil, err
		}
		return generic.Informer(), nil
	case "dynamic":
		client, err := dynamic.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		return dynamicinformer.NewFilteredDynamicInformer(client, resource, o.namespace, 0, cache.Indexers{}, tweak).Informer(), nil
	case "metadata":
		if o.content == "json" {
			config.Wrap(func(next http.RoundTripper) http.RoundTripper { return jsonMetadata{next} })
		}
		client, err := metadata.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		return metadatainformer.NewFilteredMetadataInformer(client, resource, o.namespace, 0, cache.Indexers{}, tweak).Informer(), nil
	}
	return nil, fmt.Errorf("unknown mode %q", o.mode)
}

// jsonMetadata makes the metadata client, whose Accept header is fixed, ask for JSON.
type jsonMetadata struct{ next http.RoundTripper }

func (t jsonMetadata) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	var kept []string
	for _, accept := range strings.Split(request.Header.Get("Accept"), ",") {
		if strings.HasPrefix(strings.TrimSpace(accept), "application/json") {
			kept = append(kept, accept)
		}
	}
	request.Header.Set("Accept", strings.Join(kept, ","))
	return t.next.RoundTrip(request)
}

// groupVersionResource reads "pods", or "deployments.v1.apps".
func groupVersionResource(text string) schema.GroupVersionResource {
	if full, _ := schema.ParseResourceArg(text); full != nil {
		return *full
	}
	return schema.GroupVersionResource{Version: "v1", Resource: text}
}

func observe(informer cache.SharedIndexInformer) error {
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		say(line{Event: "error", Message: err.Error()})
	})
	if err != nil {
		return err
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(o any, initial bool) { say(line{Event: "added", item: describe(o), Initial: initial}) },
		UpdateFunc: func(_, o any) { say(line{Event: "updated", item: describe(o)}) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			say(line{Event: "deleted", item: describe(o)})
		},
	})
	return err
}

func describe(o any) item {
	accessor, err := meta.Accessor(o)
	if err != nil {
		panic(errors.Join(errors.New("an informer's object without metadata"), err))
	}
	key, _ := cache.MetaNamespaceKeyFunc(o)
	return item{Key: key, UID: string(accessor.GetUID()), RV: accessor.GetResourceVersion()}
}

func dump(store cache.Store) []item {
	items := []item{}
	for _, o := range store.List() {
		items = append(items, describe(o))
	}
	sort.Slice(items, func(i, j int) bool { return items[i].Key < items[j].Key })
	return items
}

func obey(informer cache.SharedIndexInformer) {
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		switch commands.Text() {
		case "dump":
			say(line{Event: "dump", Items: dump(informer.GetStore())})
		case "quit":
			return
		}
	}
}
