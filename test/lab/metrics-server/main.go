// metrics-server 0.8 on libraries newer than its own, those that the lab's
// cluster has: what that has built is not built again. Its generated OpenAPI
// models are named by Go's paths, where these libraries look for Kubernetes'
// names, and without them it does not start:
//
//	k8s.io/metrics/pkg/apis/metrics/v1beta1.NodeMetrics
//	io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics
//
// All else is its own.
package main

import (
	"os"
	"strings"

	"github.com/spf13/pflag"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app/options"
	"sigs.k8s.io/metrics-server/pkg/api"
	"sigs.k8s.io/metrics-server/pkg/api/generated/openapi"
)

func main() {
	logs.InitLogs()
	defer logs.FlushLogs()
	o := options.NewOptions()
	flags := pflag.NewFlagSet(os.Args[0], pflag.ExitOnError)
	for _, set := range o.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(os.Args[1:]); err != nil {
		klog.Fatal(err)
	}
	if errs := o.Validate(); len(errs) > 0 {
		klog.Fatal(errs[0])
	}
	config, err := o.ServerConfig()
	if err != nil {
		klog.Fatal(err)
	}
	definitions, namer := renamed(openapi.GetOpenAPIDefinitions), openapinamer.NewDefinitionNamer(api.Scheme)
	config.Apiserver.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	config.Apiserver.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	s, err := config.Complete()
	if err != nil {
		klog.Fatal(err)
	}
	if err := s.RunUntil(genericapiserver.SetupSignalHandler()); err != nil {
		klog.Fatal(err)
	}
}

func renamed(get common.GetOpenAPIDefinitions) common.GetOpenAPIDefinitions {
	return func(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
		byName := map[string]common.OpenAPIDefinition{}
		for name, definition := range get(func(path string) spec.Ref { return ref(modelName(path)) }) {
			for i, dependency := range definition.Dependencies {
				definition.Dependencies[i] = modelName(dependency)
			}
			byName[modelName(name)] = definition
		}
		return byName
	}
}

func modelName(path string) string {
	if rest, found := strings.CutPrefix(path, "k8s.io/"); found {
		return "io.k8s." + strings.ReplaceAll(rest, "/", ".")
	}
	return path
}
