//! Ports that well-known images listen on, and ports that do not serve HTTP. Images declare their ports with `EXPOSE`,
//! but a description is compiled without pulling images.

/// Last part of an image's name, and its TCP ports.
const IMAGES: &[(&str, &[u16])] = &[
    ("activemq", &[61616, 8161]),
    ("adminer", &[8080]),
    ("arangodb", &[8529]),
    ("caddy", &[80, 443]),
    ("cassandra", &[9042]),
    ("clickhouse-server", &[8123, 9000]),
    ("cockroach", &[26257, 8080]),
    ("consul", &[8500]),
    ("couchbase", &[8091]),
    ("couchdb", &[5984]),
    ("drupal", &[80]),
    ("elasticsearch", &[9200, 9300]),
    ("etcd", &[2379, 2380]),
    ("ghost", &[2368]),
    ("grafana", &[3000]),
    ("haproxy", &[80]),
    ("httpd", &[80]),
    ("influxdb", &[8086]),
    ("jenkins", &[8080, 50000]),
    ("joomla", &[80]),
    ("kafka", &[9092]),
    ("keycloak", &[8080]),
    ("kibana", &[5601]),
    ("localstack", &[4566]),
    ("mailhog", &[1025, 8025]),
    ("mailpit", &[1025, 8025]),
    ("mariadb", &[3306]),
    ("memcached", &[11211]),
    ("minio", &[9000, 9001]),
    ("mongo", &[27017]),
    ("mongo-express", &[8081]),
    ("mongodb", &[27017]),
    ("mysql", &[3306]),
    ("mysql-server", &[3306]),
    ("nats", &[4222, 8222]),
    ("neo4j", &[7474, 7687]),
    ("nextcloud", &[80]),
    ("nginx", &[80]),
    ("opensearch", &[9200]),
    ("percona", &[3306]),
    ("phpmyadmin", &[80]),
    ("pgadmin4", &[80]),
    ("postgis", &[5432]),
    ("postgres", &[5432]),
    ("postgresql", &[5432]),
    ("prometheus", &[9090]),
    ("rabbitmq", &[5672, 15672]),
    ("redis", &[6379]),
    ("redis-stack", &[6379, 8001]),
    ("redis-stack-server", &[6379]),
    ("registry", &[5000]),
    ("rethinkdb", &[28015, 29015, 8080]),
    ("selenium-hub", &[4444]),
    ("solr", &[8983]),
    ("sonarqube", &[9000]),
    ("tomcat", &[8080]),
    ("traefik", &[80]),
    ("valkey", &[6379]),
    ("varnish", &[80]),
    ("vault", &[8200]),
    ("wordpress", &[80]),
    ("zookeeper", &[2181]),
];

/// TCP ports that are known to speak something other than plain HTTP: databases, queues, TLS, debuggers.
const NOT_HTTP: &[u16] = &[
    20, 21, 22, 23, 25, 53, 88, 110, 111, 123, 135, 139, 143, 161, 179, 389, 443, 445, 465, 514, 587, 636,
    853, 873, 989, 990, 993, 995, 1025, 1433, 1521, 1883, 2181, 2222, 2345, 2379, 2380, 3306, 3389, 4222,
    4317, 5005, 5060, 5222, 5432, 5433, 5671, 5672, 5900, 6000, 6379, 6380, 6443, 6667, 7000, 7001, 7687,
    8443, 8883, 9042, 9092, 9093, 9160, 9229, 9230, 9300, 9418, 9443, 11211, 15433, 25565, 26257, 26379,
    27017, 27018, 27019, 28015, 29015, 29092, 33060, 50000, 61616,
];

/// TCP ports that containers of `image` listen on; empty if the image is not in the table.
pub fn of_image(image: &str) -> &'static [u16] {
    let name = base(image);
    IMAGES.iter().find(|(known, _)| *known == name).map_or(&[], |(_, ports)| ports)
}

/// Whether `port` may serve HTTP: any port but those known for another protocol.
pub fn may_be_http(port: u16) -> bool {
    !NOT_HTTP.contains(&port)
}

/// The last part of an image's name: `redis` for `registry:5000/team/redis:7-alpine@sha256:...`.
pub fn base(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_images() {
        for (image, ports) in [
            ("redis", &[6379][..]),
            ("docker.io/library/redis:7-alpine", &[6379]),
            ("registry:5000/team/mysql@sha256:00", &[3306]),
            ("registry:2", &[5000]),
            ("my/redis-thing", &[]),
        ] {
            assert_eq!(of_image(image), ports, "{image}");
        }
    }
}
