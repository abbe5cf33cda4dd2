require "kubeclient"

$stdout.sync = true
config = Kubeclient::Config.read(ARGV[0])
context = config.context
client = Kubeclient::Client.new(context.api_endpoint, "v1", ssl_options: context.ssl_options, auth_options: context.auth_options)
listed = client.get_pods(namespace: "shop")
listed.each { |pod| puts "seen #{pod.metadata.name} #{pod.metadata.labels&.step}" }
at = listed.resourceVersion
loop do
  client.watch_pods(namespace: "shop", resource_version: at) do |event|
    raise "expired" if event.type == "ERROR"
    at = event.object.metadata.resourceVersion
    puts "#{event.type} #{event.object.metadata.name} #{event.object.metadata.labels&.step}"
  end
  puts "again"
end
