// Package v1alpha1 is the API of taskflow: the kind Task of api.practice.com/v1alpha1.
//
// +kubebuilder:object:generate=true
// +groupName=api.practice.com
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of this package's kinds.
var GroupVersion = schema.GroupVersion{Group: "api.practice.com", Version: "v1alpha1"}

// TaskKind is the kind Task.
var TaskKind = GroupVersion.WithKind("Task")

var schemeBuilder = runtime.NewSchemeBuilder(func(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Task{}, &TaskList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
})

// AddToScheme registers this package's kinds.
var AddToScheme = schemeBuilder.AddToScheme
