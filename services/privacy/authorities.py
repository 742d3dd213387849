"""Who a person can complain to: the supervisory authorities of the EEA (GDPR, Art. 77), and California's agency."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from services.privacy.domain.rights import Law


@dataclass(frozen=True, slots=True)
class Supervisor:
    """An authority that hears complaints, by the name it goes by, and where it is found."""

    name: str
    website: str


_OF_CALIFORNIA = Supervisor("California Privacy Protection Agency", "https://cppa.ca.gov")
_OF_ALL = Supervisor(
    "European Data Protection Board: members", "https://www.edpb.europa.eu/about-edpb/about-edpb/members_en"
)
"""Where the country is not known, or is none of the EEA: the list of all of them."""
_BY_COUNTRY: Mapping[str, Supervisor] = MappingProxyType(
    {
        "AT": Supervisor("Österreichische Datenschutzbehörde", "https://www.dsb.gv.at"),
        "BE": Supervisor(
            "Autorité de protection des données / Gegevensbeschermingsautoriteit",
            "https://www.dataprotectionauthority.be",
        ),
        "BG": Supervisor("Commission for Personal Data Protection", "https://www.cpdp.bg"),
        "CY": Supervisor("Commissioner for Personal Data Protection", "https://www.dataprotection.gov.cy"),
        "CZ": Supervisor("Úřad pro ochranu osobních údajů", "https://uoou.gov.cz"),
        "DE": Supervisor(
            "Bundesbeauftragte für den Datenschutz und die Informationsfreiheit", "https://www.bfdi.bund.de"
        ),
        "DK": Supervisor("Datatilsynet", "https://www.datatilsynet.dk"),
        "EE": Supervisor("Andmekaitse Inspektsioon", "https://www.aki.ee"),
        "ES": Supervisor("Agencia Española de Protección de Datos", "https://www.aepd.es"),
        "FI": Supervisor("Tietosuojavaltuutetun toimisto", "https://tietosuoja.fi"),
        "FR": Supervisor("Commission nationale de l’informatique et des libertés", "https://www.cnil.fr"),
        "GR": Supervisor("Hellenic Data Protection Authority", "https://www.dpa.gr"),
        "HR": Supervisor("Agencija za zaštitu osobnih podataka", "https://azop.hr"),
        "HU": Supervisor("Nemzeti Adatvédelmi és Információszabadság Hatóság", "https://www.naih.hu"),
        "IE": Supervisor("Data Protection Commission", "https://www.dataprotection.ie"),
        "IS": Supervisor("Persónuvernd", "https://www.personuvernd.is"),
        "IT": Supervisor("Garante per la protezione dei dati personali", "https://www.garanteprivacy.it"),
        "LI": Supervisor("Datenschutzstelle", "https://www.datenschutzstelle.li"),
        "LT": Supervisor("Valstybinė duomenų apsaugos inspekcija", "https://vdai.lrv.lt"),
        "LU": Supervisor("Commission nationale pour la protection des données", "https://cnpd.public.lu"),
        "LV": Supervisor("Datu valsts inspekcija", "https://www.dvi.gov.lv"),
        "MT": Supervisor("Office of the Information and Data Protection Commissioner", "https://idpc.org.mt"),
        "NL": Supervisor("Autoriteit Persoonsgegevens", "https://www.autoriteitpersoonsgegevens.nl"),
        "NO": Supervisor("Datatilsynet", "https://www.datatilsynet.no"),
        "PL": Supervisor("Urząd Ochrony Danych Osobowych", "https://uodo.gov.pl"),
        "PT": Supervisor("Comissão Nacional de Proteção de Dados", "https://www.cnpd.pt"),
        "RO": Supervisor(
            "Autoritatea Națională de Supraveghere a Prelucrării Datelor cu Caracter Personal",
            "https://www.dataprotection.ro",
        ),
        "SE": Supervisor("Integritetsskyddsmyndigheten", "https://www.imy.se"),
        "SI": Supervisor("Informacijski pooblaščenec", "https://www.ip-rs.si"),
        "SK": Supervisor("Úrad na ochranu osobných údajov", "https://dataprotection.gov.sk"),
    }
)


def supervisor_of(law: Law, country: str | None) -> Supervisor:
    """That of the store's country (ISO 3166-1 alpha-2); under California's law California's."""
    return _OF_CALIFORNIA if law is Law.CCPA else _BY_COUNTRY.get(country or "", _OF_ALL)
